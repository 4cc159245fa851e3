// A client of Eclipse Paho's library for Go (MQTT 3.1.1), driven by lines: see foreign.rs.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

var out sync.Mutex

func say(words ...interface{}) {
	out.Lock()
	defer out.Unlock()
	fmt.Println(words...)
}

func bit(is bool) int {
	if is {
		return 1
	}
	return 0
}

func main() {
	options := mqtt.NewClientOptions().AddBroker("tcp://127.0.0.1:" + os.Args[1]).SetProtocolVersion(4)
	options.SetClientID(os.Args[3]).SetCleanSession(os.Args[4] != "1").SetMaxReconnectInterval(200 * time.Millisecond)
	if len(os.Args) > 5 {
		options.SetWill(os.Args[5], os.Args[6], 1, true)
	}
	options.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		say("message", m.Qos(), bit(m.Retained()), bit(m.Duplicate()), m.Topic(), string(m.Payload()))
	})
	// This library does not tell whether there was a session.
	options.SetOnConnectHandler(func(mqtt.Client) { say("connected -") })
	client := mqtt.NewClient(options)
	if t := client.Connect(); t.Wait() && t.Error() != nil {
		panic(t.Error())
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch words := strings.SplitN(lines.Text(), " ", 5); words[0] {
		case "publish":
			t := client.Publish(words[3], words[1][0]-'0', words[2] == "1", words[4])
			go func() {
				if t.Wait() && t.Error() == nil {
					say("published")
				}
			}()
		case "subscribe":
			t := client.Subscribe(words[2], words[1][0]-'0', nil).(*mqtt.SubscribeToken)
			if t.Wait() && t.Error() != nil {
				panic(t.Error())
			}
			say("subscribed", t.Result()[words[2]])
		case "leave":
			client.Disconnect(250)
			return
		}
	}
}
