"""Stands in for mosquitto_pub and mosquitto_sub where these are not installed: the options that the docs use, by paho."""

from __future__ import annotations

import argparse
import sys
import threading

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion


def main(name: str, words: list[str]) -> int:
    parser = argparse.ArgumentParser(name, add_help=False)
    parser.add_argument("-h", dest="host", default="127.0.0.1")
    parser.add_argument("-p", dest="port", type=int, default=1883)
    parser.add_argument("-t", dest="topic", required=True)
    parser.add_argument("-m", dest="message")
    parser.add_argument("-q", dest="qos", type=int, default=0)
    parser.add_argument("-C", dest="count", type=int)
    parser.add_argument("-W", dest="seconds", type=float)
    parser.add_argument("-r", dest="retain", action="store_true")
    parser.add_argument("-v", dest="verbose", action="store_true")
    options = parser.parse_args(words)
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect(options.host, options.port)
    if name == "mosquitto_pub":
        client.loop_start()
        client.publish(options.topic, options.message, options.qos, options.retain).wait_for_publish(60)
        client.disconnect()
        client.loop_stop()
        return 0
    done, seen = threading.Event(), []

    def on_message(_: object, __: object, message: paho.MQTTMessage) -> None:
        seen.append(message)
        sys.stdout.write(f"{message.topic} " * options.verbose + message.payload.decode() + "\n")
        sys.stdout.flush()
        if options.count is not None and len(seen) >= options.count:
            done.set()

    client.on_message = on_message
    client.subscribe(options.topic, options.qos)
    client.loop_start()
    ended = done.wait(options.seconds)
    client.loop_stop()
    return 0 if ended else 27  # as mosquitto_sub -W


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
