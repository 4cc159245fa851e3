"""Requests and responses of MQTT 5.0 with Eclipse Paho's library for Python, a part at a time:

exchanges.py PORT subscribe   who answers subscribes, with a session that lasts, and leaves
exchanges.py PORT ask         who asks subscribes for the answers, likewise, asks, and leaves
exchanges.py PORT answer      who answers comes back, answers them in another order, and leaves
exchanges.py PORT read        who asked comes back, and finds the question of each answer
"""
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

port, part = int(sys.argv[1]), sys.argv[2]
COUNT = 20
heard, arrived, subscribed = [], threading.Semaphore(0), threading.Event()


def correlation(i):
    """Bytes that are no text."""
    return bytes([0, 255, i, 0])


def take(_client, _user, message):
    heard.append(message)
    arrived.release()


def client(name):
    c = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5)
    c.on_message = take
    c.on_subscribe = lambda *a: subscribed.set()
    lasting = Properties(PacketTypes.CONNECT)
    lasting.SessionExpiryInterval = 3600
    c.connect("127.0.0.1", port, clean_start=False, properties=lasting)
    c.loop_start()
    return c


def subscribe(c, topic):
    c.subscribe(topic, qos=2)
    assert subscribed.wait(30), "it is subscribed"


def publish(c, topic, payload, correlation_data, response_topic=None):
    p = Properties(PacketTypes.PUBLISH)
    p.CorrelationData = correlation_data
    p.UserProperty = ("desk", "中文")
    if response_topic:
        p.ResponseTopic = response_topic
    return c.publish(topic, payload, 2, properties=p)


def leave(c, sent=()):
    for info in sent:
        info.wait_for_publish(30)
        assert info.is_published()
    c.disconnect()
    c.loop_stop()


def wait_for_all():
    for n in range(COUNT):
        assert arrived.acquire(timeout=30), f"{n} of {COUNT} came"


if part == "subscribe":
    c = client("answers")
    subscribe(c, "chat/questions")
    leave(c)
    print("subscribed")
elif part == "ask":
    c = client("asks")
    subscribe(c, "chat/answers/asks")
    sent = [publish(c, "chat/questions", f"{i} + {i}?", correlation(i), "chat/answers/asks") for i in range(COUNT)]
    leave(c, sent)
    print("asked", len(sent))
elif part == "answer":
    c = client("answers")
    wait_for_all()
    assert [m.payload.decode() for m in heard] == [f"{i} + {i}?" for i in range(COUNT)]
    assert all(m.properties.UserProperty == [("desk", "中文")] for m in heard)
    sent = []
    for m in reversed(heard):
        answer = str(2 * int(m.payload.split()[0]))
        sent.append(publish(c, m.properties.ResponseTopic, answer, m.properties.CorrelationData))
    leave(c, sent)
    print("answered", len(sent))
elif part == "read":
    c = client("asks")
    wait_for_all()
    came = {bytes(m.properties.CorrelationData): m.payload.decode() for m in heard}
    assert came == {correlation(i): str(2 * i) for i in range(COUNT)}, came
    leave(c)
    print(len(heard), "answers, each to its question")
