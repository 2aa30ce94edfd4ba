'use strict';

const TABLE = Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) {
    value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  }
  return value;
});

/** Returns the checksum of a text in ASCII, which is how Pomelo spreads uids over servers. */
function crc32(text) {
  const rest = [...text].reduce(
    (sum, character) => TABLE[(sum ^ character.charCodeAt(0)) & 255] ^ (sum >>> 8),
    -1,
  );
  return ~rest >>> 0;
}

module.exports = { crc32 };
