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

/** Returns the options of TLS that tangelo has, with paths in place of contents, and the names of all others. */
function sslOptions({ cert, key, ca, crl, requestCert, rejectUnauthorized, minVersion, ...others }) {
  const pathOf = (content) => {
    const [one, ...more] = [content].flat();
    return more.length === 0 ? paths.get(String(one)) : undefined;
  };
  const lists = pathOf(crl);
  const without = Object.keys(others).filter((option) => option !== 'type');
  if (crl && !lists) without.push('crl');
  return {
    cert: pathOf(cert), key: pathOf(key), ca: pathOf(ca), crl: lists, requestCert, rejectUnauthorized, minVersion, without,
  };
}

module.exports = { sslOptions, watchFiles };
