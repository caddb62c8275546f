// Grpc-js's health clients: node health.js check|watch ADDRESS [SERVICE]. A line for every status,
// or for the code of the error, after which the exit code is 1.
"use strict";

const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [word, address, service = ""] = process.argv.slice(2);
const proto = loader.loadSync(path.join(__dirname, "../health.proto"), {
  enums: String,
  defaults: true,
});
const { Health } = grpc.loadPackageDefinition(proto).grpc.health.v1;
const client = new Health(address, grpc.credentials.createInsecure());

function fail(error) {
  console.log(grpc.status[error.code]);
  process.exit(1);
}

if (word === "check") {
  const deadline = Date.now() + 10_000;
  client.check({ service }, { deadline }, (error, reply) => {
    if (error) {
      fail(error);
    }
    console.log(reply.status);
    client.close();
  });
} else {
  const stream = client.watch({ service });
  stream.on("data", (reply) => console.log(reply.status));
  stream.on("error", fail);
}
