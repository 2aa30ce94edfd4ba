'use strict';
// node codec.js <pomelo|pinus> <file>: for each line {"schema", "encode": [JSON text], "decode": [hex]} of the file one
// line {"parsed": text, "encoded": [hex, null or false], "decoded": [text or false]}; false is an exception.

const fs = require('fs');
for (const name of ['log', 'warn', 'error']) console[name] = () => {};

// The encoders write into twice the length of the JSON text and throw where that is too short. tangelo has no such
// bound, so they get more room here.
const ROOM = 1 << 16;
const RealBuffer = Buffer;
global.Buffer = Object.assign(function (bytes) { return RealBuffer.alloc(bytes + ROOM); }, {
  alloc: (bytes) => RealBuffer.alloc(bytes + ROOM),
  byteLength: RealBuffer.byteLength,
});

const [flavour, file] = process.argv.slice(2);
const codec = flavour === 'pomelo' ? pomelo() : pinus();

function pomelo() {
  const protobuf = require('pomelo-protobuf');
  return {
    parse: protobuf.parse,
    use: (protos) => protobuf.init({ encoderProtos: protos, decoderProtos: protos }),
    encode: protobuf.encode,
    decode: protobuf.decode,
  };
}

function pinus() {
  const { Protobuf } = require('pinus-protobuf/dist/protobuf');
  let protobuf;
  return {
    parse: Protobuf.parse,
    use: (protos) => { protobuf = new Protobuf({ encoderProtos: protos, decoderProtos: protos }); },
    encode: (route, message) => protobuf.encode(route, message),
    decode: (route, bytes) => protobuf.decode(route, bytes),
  };
}

function attempt(run) {
  try { return run(); } catch (e) { return false; }
}

// JSON has no maps: an object stands for one on tangelo's side.
function withMaps(value, proto, protos) {
  if (!proto || typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const made = {};
  for (const name of Object.keys(value)) {
    const field = proto[name];
    made[name] = field && typeof field.option === 'string' ? fieldWithMaps(value[name], field, proto, protos) : value[name];
  }
  return made;
}

function fieldWithMaps(value, field, proto, protos) {
  const of = (type) => proto.__messages[type] || protos['message ' + type];
  const message = of(field.type);
  if (field.option === 'repeated') {
    return Array.isArray(value) ? value.map((element) => withMaps(element, message, protos)) : value;
  }
  if (field.option !== 'map' && field.option !== 'obj') return withMaps(value, message, protos);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const made = {};
  for (const name of Object.keys(value)) made[name] = withMaps(value[name], of(message.value.type), protos);
  return field.option === 'map' ? new Map(Object.entries(made)) : made;
}

function withoutMaps(key, value) {
  if (!(value instanceof Map)) return value;
  const object = {};
  for (const [name, member] of value) object[name] = member;
  return object;
}

for (const line of fs.readFileSync(file, 'utf8').split('\n').filter(Boolean)) {
  const { schema, encode, decode } = JSON.parse(line);
  const protos = codec.parse(schema);
  codec.use(protos);
  const encoded = encode.map((text) => attempt(() => {
    const bytes = codec.encode('route', withMaps(JSON.parse(text), protos.route, protos));
    return bytes && bytes.toString('hex');
  }));
  const decoded = decode.map((hex) => attempt(() =>
    JSON.stringify(codec.decode('route', RealBuffer.from(hex, 'hex')), withoutMaps)));
  process.stdout.write(JSON.stringify({ parsed: JSON.stringify(protos), encoded, decoded }) + '\n');
}
