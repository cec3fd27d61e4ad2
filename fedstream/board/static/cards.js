// What one can try out: commands to copy, and the tab on which the effect is seen.

const KILL = "source deploy/local/env.sh; kill -9 -- -$(supervisorctl -c deploy/local/supervisord.conf pid jobs:fog-1)";
const BAD = `echo '{"sensor_id":"node-1","temperature":"hot","vibration":0.05,"label":0}'`;

export const CARDS = [
  { key: "send", see: "overview", commands: { all: ["make run-producer run-fog run-cloud run-alerts ARGS=", "make run-producer ARGS=\"--rate 100\""] } },
  {
    key: "bad", see: "letters", commands: {
      docker: [`${BAD} | docker exec -i kafka kafka-console-producer --bootstrap-server kafka:29092 --topic sensor-data-node-1`],
      local: [`${BAD} | deploy/bin/kafka-console-producer --bootstrap-server localhost:9092 --topic sensor-data-node-1`],
    },
  },
  { key: "kill", see: "overview", commands: { docker: ["docker exec fog-1 sh -c 'kill -9 -1'"], local: [KILL] } },
  { key: "shift", see: "learning", commands: { all: ["make run-producer ARGS=\"--rate 100 --shift 2:10:0.02\""] } },
  { key: "add", see: "learning", commands: { all: ["make run-fog NODES=3", "make run-producer NODES=3 ARGS=\"--rate 100\""] } },
  { key: "squares", see: "streams", commands: { all: ["make run-squares", "make run-squares-kafka run-bridge"] } },
];
