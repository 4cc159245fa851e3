// A client of MQTT.js, driven by lines: see foreign.rs.
const mqtt = require("mqtt");
const [port, version, clientId, keeps, willTopic, willPayload] = process.argv.slice(2);
const say = (...words) => process.stdout.write(words.join(" ") + "\n");

const options = { host: "127.0.0.1", port, clientId, clean: keeps !== "1", reconnectPeriod: 100 };
options.protocolVersion = Number(version);
if (version === "5" && keeps === "1") options.properties = { sessionExpiryInterval: 3600 };
if (willTopic) options.will = { topic: willTopic, payload: willPayload, qos: 1, retain: true };
const client = mqtt.connect(options);
client.on("connect", (connack) => say("connected", connack.sessionPresent ? 1 : 0));
client.on("message", (topic, payload, m) => say("message", m.qos, m.retain ? 1 : 0, m.dup ? 1 : 0, topic, payload));
// It tries again by itself.
client.on("error", () => {});

// What is published while it repeats what was under way, and the line breaks meanwhile, it gives back unsent.
const publish = (...message) =>
  client.publish(...message, (error) => (error ? setTimeout(publish, 20, ...message) : say("published")));

const lines = require("readline").createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const [what, ...words] = line.split(" ");
  if (what === "publish") {
    const [qos, retain, topic, ...payload] = words;
    publish(topic, payload.join(" "), { qos: Number(qos), retain: retain === "1" });
  } else if (what === "subscribe") {
    client.subscribe(words[1], { qos: Number(words[0]) }, (error, granted) => {
      if (error) throw error;
      say("subscribed", granted[0].qos);
    });
  } else if (what === "leave") {
    client.end(false, {}, () => process.exit(0));
  }
});
lines.on("close", () => client.disconnecting || process.exit(0));
