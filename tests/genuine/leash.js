// Ends a process when its parent has ended. A test gives it to a master by NODE_OPTIONS, and the servers that
// the master starts inherit it: so none of them outlives the test.
'use strict';

const parent = process.ppid;
setInterval(() => {
  if (process.ppid !== parent) process.exit(1);
}, 200).unref();
