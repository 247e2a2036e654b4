// A client of the streaming service in JavaScript, made from the .proto files alone.
//
//     woodpecker up &
//     npm install --prefix examples/node
//     node examples/node/client.js 127.0.0.1:7300 orders paid packed
//
// sends the words to the channel, prints all that the channel holds, and ends. What the frames mean is in
// docs/streaming-wire.md.

"use strict";

const crypto = require("node:crypto");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const PROTO = path.join(__dirname, "../../src/woodpecker/streaming/proto");
const FILES = ["handler", "assignment"].map((name) => `woodpecker/streaming/v1/${name}.proto`);
// keepCase: the names of the documents. longs: 64-bit numbers as text, no digit is lost. oneofs: which frame it is.
const OPTIONS = { includeDirs: [PROTO], keepCase: true, longs: String, enums: String, oneofs: true };
const v1 = grpc.loadPackageDefinition(loader.loadSync(FILES, OPTIONS)).woodpecker.streaming.v1;

function client(service, address) {
  return new v1[service](address, grpc.credentials.createInsecure());
}

async function* frames(stream) {
  for await (const wrapper of stream) {
    if (wrapper.frame !== undefined) yield [wrapper.frame, wrapper[wrapper.frame]];
  }
}

function createChannel(assignment, name) {
  const request = { name, request: crypto.randomUUID(), exist_ok: true };
  return new Promise((resolve, reject) => {
    assignment.CreateChannel(request, (error, reply) => (error ? reject(error) : resolve(reply)));
  });
}

async function findOwner(assignment, pchannel) {
  const stream = assignment.Discover();
  stream.write({ discover_hello: { client: "node" } });
  for await (const [kind, change] of frames(stream)) {
    if (kind !== "map_change") continue;
    const owner = change.entries.find((entry) => entry.pchannel === pchannel && entry.serving);
    if (owner !== undefined) {
      stream.end();
      return owner;
    }
  }
  throw new Error(`nobody serves ${pchannel}`);
}

function hello({ pchannel, term, incarnation }) {
  return { pchannel, term, incarnation };
}

async function send(handler, owner, vcid, words) {
  const stream = handler.Produce();
  stream.write({ produce_hello: hello(owner) });
  stream.write({ attach: { session: 1 } });
  for await (const [kind, frame] of frames(stream)) {
    if (kind === "attached") {
      const payloads = words.map((word) => Buffer.from(word));
      const { next_sequence: sequence, grant_tick } = frame;
      stream.write({ batch: { session: 1, sequence, vcid, messages: { payloads }, grant_tick } });
    } else if (kind === "ack") {
      stream.end();
      return;
    } else if (kind === "batch_refused") {
      throw new Error(frame.refusal.message);
    }
  }
}

async function read(handler, owner, vcid) {
  const stream = handler.Consume();
  stream.write({ consume_hello: hello(owner) });
  const [start, stop] = [{ form: "START_FORM_EARLIEST" }, { form: "END_FORM_TAIL" }];
  stream.write({ subscribe: { consumer: 1, vcid, start, stop } });
  for await (const [kind, frame] of frames(stream)) {
    if (kind === "data") {
      frame.messages.payloads.forEach((payload, at) => console.log(frame.seqs[at], payload.toString()));
      stream.write({ credit: { consumer: 1, size_bytes: frame.cost_bytes } });
    } else if (kind === "consumer_ended") {
      stream.end();
      return;
    } else if (kind === "consumer_refused") {
      throw new Error(frame.refusal.message);
    }
  }
}

async function main(address, name, words) {
  const assignment = client("AssignmentService", address);
  const { pchannel, vcid } = await createChannel(assignment, name);
  const owner = await findOwner(assignment, pchannel);
  const handler = client("HandlerService", owner.address);
  await send(handler, owner, vcid, words);
  await read(handler, owner, vcid);
  assignment.close();
  handler.close();
}

const [address, name, ...words] = process.argv.slice(2);
main(address, name, words.length ? words : ["hello"]).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
