'use strict';
// The PEM files that a main script reads: a setting with the content of one can then name the file.

const fs = require('fs');
const path = require('path');

/** Paths by content. */
const paths = new Map();

/** Notes each file of the PEM format that the script reads from now on. */
function watchFiles() {
  const { readFileSync } = fs;
  fs.readFileSync = function (file, ...args) {
    const content = readFileSync.call(this, file, ...args);
    if (content.includes('-----BEGIN ')) paths.set(String(content), path.resolve(String(file)));
    return content;
  };
}

/** Returns the options of TLS that tangelo has, with paths in place of contents. */
function sslOptions({ cert, key, ca, requestCert, rejectUnauthorized }) {
  const pathOf = (content) => {
    const [one, ...more] = [content].flat();
    return more.length === 0 ? paths.get(String(one)) : undefined;
  };
  return { cert: pathOf(cert), key: pathOf(key), ca: pathOf(ca), requestCert, rejectUnauthorized };
}

module.exports = { sslOptions, watchFiles };
