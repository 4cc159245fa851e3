// A client of Eclipse Paho's library for C++, driven by lines: see foreign.rs.
#include <cstdlib>
#include <iostream>
#include <mqtt/async_client.h>
#include <mutex>
#include <sstream>

static void say(const std::string& line) {
    static std::mutex out;
    std::lock_guard<std::mutex> own(out);
    std::cout << line << std::endl;
}

struct Hears : mqtt::callback {
    void delivery_complete(mqtt::delivery_token_ptr) override { say("published"); }
    void message_arrived(mqtt::const_message_ptr m) override {
        std::ostringstream line;
        line << "message " << m->get_qos() << ' ' << m->is_retained() << ' ' << m->is_duplicate() << ' '
             << m->get_topic() << ' ' << m->to_string();
        say(line.str());
    }
};

int main(int, char** args) {
    const int version = std::stoi(args[2]);
    const bool keeps = std::string(args[4]) == "1";
    auto create = mqtt::create_options_builder().mqtt_version(version).send_while_disconnected(true, true);
    mqtt::async_client client(std::string("tcp://127.0.0.1:") + args[1], args[3],
                              create.max_buffered_messages(10000).finalize());
    Hears hears;
    client.set_callback(hears);
    // With each connection again, and without a word on the session.
    client.set_connected_handler([](const std::string&) { say("connected -"); });
    mqtt::connect_options options;
    options.set_mqtt_version(version);
    options.set_automatic_reconnect(1, 1);
    if (version == 5) {
        options.set_clean_start(!keeps);
        if (keeps) options.set_properties({{mqtt::property::SESSION_EXPIRY_INTERVAL, 3600}});
    } else {
        options.set_clean_session(!keeps);
    }
    if (args[5]) options.set_will(mqtt::will_options(std::string(args[5]), std::string(args[6]), 1, true));
    client.connect(options)->wait();

    std::string line;
    while (std::getline(std::cin, line)) {
        std::istringstream words(line);
        std::string what, topic, payload;
        int qos = 0, retain = 0;
        words >> what >> qos;
        if (what == "publish") {
            words >> retain >> topic;
            words.get();
            std::getline(words, payload);
            auto sent = client.publish(mqtt::make_message(topic, payload, qos, retain == 1));
            if (qos == 0) {
                sent->wait();
                say("published");
            }
        } else if (what == "subscribe") {
            words >> topic;
            auto granted = client.subscribe(topic, qos);
            say("subscribed " + std::to_string(granted->get_subscribe_response().get_reason_codes().at(0)));
        } else if (what == "leave") {
            client.disconnect()->wait();
            return 0;
        }
    }
    std::_Exit(0);
}
