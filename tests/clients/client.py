"""A client of Eclipse Paho's library for Python, driven by lines: see foreign.rs."""
import os
import socket
import sys
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

port, version, name, keeps = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == "1"


def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def wait_for_node(*_):
    """With a second try at a port that is closed, the library forgets which PUBRELs it owes and publishes
    those messages once more: so the first try has to do."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)


if version == "5":
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5)
    begin = dict(clean_start=not keeps)
    if keeps:
        begin["properties"] = Properties(PacketTypes.CONNECT)
        begin["properties"].SessionExpiryInterval = 3600
else:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv311, clean_session=not keeps)
    begin = {}
if len(sys.argv) > 5:
    will = None
    if len(sys.argv) > 7:
        will = Properties(PacketTypes.WILLMESSAGE)
        will.WillDelayInterval = int(sys.argv[7])
    client.will_set(sys.argv[5], sys.argv[6], 1, True, will)
client.reconnect_delay_set(0.1, 0.2)
client.on_pre_connect = wait_for_node
client.on_connect = lambda c, u, flags, reason, p: say("connected", int(flags.session_present))
client.on_subscribe = lambda c, u, mid, reasons, p: say("subscribed", reasons[0].value)
client.on_publish = lambda *a: say("published")
client.on_message = lambda c, u, m: say("message", m.qos, int(m.retain), int(m.dup), m.topic, m.payload.decode())
client.connect("127.0.0.1", port, **begin)
client.loop_start()
for line in sys.stdin:
    what, *rest = line.rstrip("\n").split(" ", 1)
    if what == "publish":
        qos, retain, topic, payload = rest[0].split(" ", 3)
        client.publish(topic, payload, int(qos), retain == "1")
    elif what == "subscribe":
        qos, topic = rest[0].split(" ")
        client.subscribe(topic, int(qos))
    elif what == "drop":
        client.socket().shutdown(socket.SHUT_RDWR)
    elif what == "leave":
        client.disconnect()
        client.loop_stop()
        break
os._exit(0)
