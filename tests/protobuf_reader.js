// Reads delimited TtsStreamResponse messages with protobufjs: `node protobuf_reader.js PROTO`, bytes on standard input.
// Prints what it understood as one line of JSON, and then a TtsStreamRequest of its own making, in hex.
const protobuf = require("protobufjs");
const { createHash } = require("crypto");

const chunks = [];
process.stdin.on("data", (chunk) => chunks.push(chunk));
process.stdin.on("end", () => {
  const root = protobuf.loadSync(process.argv[2]);
  const Response = root.lookupType("edgecache.v1.TtsStreamResponse");
  const Request = root.lookupType("edgecache.v1.TtsStreamRequest");
  const reader = protobuf.Reader.create(Buffer.concat(chunks));
  const hash = createHash("sha256");
  const told = { chunks: 0, final: false, error: null };
  while (reader.pos < reader.len) {
    const message = Response.decodeDelimited(reader);
    if (message.event === "metadata") {
      told.metadata = Response.toObject(message, { longs: Number }).metadata;
    } else if (message.event === "audio") {
      hash.update(Buffer.from(message.audio.audioData));
      told.chunks += 1;
      told.final = message.audio.isFinal;
    } else if (message.event === "error") {
      told.error = message.error.code;
    }
  }
  told.sha256 = hash.digest("hex");
  console.log(JSON.stringify(told));
  const others = { fields: { style: { stringValue: "calm" } } };
  const asked = Request.create({ text: "Größe", voiceId: "ann", speakingRate: 0.9, sampleRate: 8000, others });
  console.log(Buffer.from(Request.encode(asked).finish()).toString("hex"));
});
