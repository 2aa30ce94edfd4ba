// The events of this process, oldest first, and the application as a file without a handler gets it.
'use strict';

exports.log = [];

exports.elsewhere = () => require('pomelo').app;
