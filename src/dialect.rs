//! Where Pomelo and Pinus differ.
//!
//! Each difference is one line of the table: a method of [`Dialect`] with its value in Pomelo and in Pinus, and with
//! the file of the reference that decides it. Code asks for the value, never for the name of a framework.
//!
//! **Absent**: the differences of the two protobuf codecs, which know no configuration: `wire/protobuf` has them.
//!
//! **Where to start reading**: the table at the end of the file.

/// Framework whose details tangelo follows where Pomelo and Pinus differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Pomelo 2.2.
    Pomelo,
    /// Pinus 1.7.
    Pinus,
}

/// Makes a method of each line: `name: type = value in Pomelo, value in Pinus;`.
macro_rules! differences {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $pomelo:expr, $pinus:expr;)*) => {
        impl Dialect {
            $($(#[$doc])*
            pub(crate) const fn $name(self) -> $type {
                match self {
                    Self::Pomelo => $pomelo,
                    Self::Pinus => $pinus,
                }
            })*
        }
    };
}

differences! {
    // Clients.

    /// The code of a close frame that closes a WebSocket without a fault.
    ///
    /// Source: `connectors/hybrid/wsprocessor.js`, the version of `ws`
    close_code: Option<u16> = Some(1000), None;
    /// The key of a WebSocket upgrade may be any text. Otherwise it is the base64 of 16 bytes.
    ///
    /// Source: `ws` 1.1.1, `lib/WebSocketServer.js`; `ws` 8, `lib/websocket-server.js`
    takes_any_websocket_key: bool = true, false;
    /// The WebSocket frames of a client may come without a mask.
    ///
    /// Source: `ws` 1.1.1, `lib/Receiver.js`; `ws` 8, `lib/receiver.js`
    takes_unmasked_frames: bool = true, false;
    /// A message that ends before its route is dropped. Otherwise its client is closed.
    ///
    /// Source: `pomelo-protocol` and `pinus-protocol`, `Message.decode`
    drops_cut_message: bool = true, false;
    /// The reply to a handshake has `routeToCode` and `codeToRoute` beside `dict`.
    ///
    /// Source: `connectors/commands/handshake.js`
    sends_code_maps: bool = true, false;
    /// The reason in the kick package of a kick without a reason; without one there is no kick package.
    ///
    /// Source: `common/service/sessionService.js`, `kick`
    default_kick_reason: Option<&'static str> = Some("kick"), None;

    /// Protobuf has the types `bool`, `uInt64`, `sInt64`, `map` and `obj`, and skips unknown tags.
    ///
    /// Source: `pinus-protobuf`, `lib/parser.ts`, `lib/decoder.ts`
    extends_protobuf: bool = false, true;

    // Sessions and handlers.

    /// The participle in the errors of a bind.
    ///
    /// Source: `common/service/sessionService.js`, `bind`
    bound_word: &'static str = "bind", "bound";
    /// The message of a handler has its route as member `__route__`.
    ///
    /// Source: `common/service/handlerService.js`
    adds_route_to_message: bool = true, false;

    // Routing.

    /// The hash of a uid is that of the low bytes of its UTF-16 units. Otherwise it is that of its UTF-8 bytes.
    ///
    /// Source: `components/proxy.js`, the version of `crc`
    hashes_utf16: bool = true, false;
    /// The hash of a uid is a signed number.
    ///
    /// Source: `components/proxy.js`, the version of `crc`
    hash_is_signed: bool = true, false;

    // Calls.

    /// The results of a call that succeeds without a value.
    ///
    /// Source: `pomelo-rpc` and `pinus-rpc`, `rpc-server/acceptors/mqtt-acceptor.js`
    empty_results: &'static [u8] = b"[]", b"[null,null]";
    /// A frontend without remotes of the application still knows their namespace.
    ///
    /// Source: `pomelo-rpc` and `pinus-rpc`, `rpc-server/dispatcher.js`
    always_has_user_namespace: bool = false, true;
    /// A server announces the folders of its remotes, and the others make their stubs of these. Otherwise each server
    /// looks into its own project.
    ///
    /// Source: `components/remote.js`, `components/proxy.js`
    announces_remotes: bool = false, true;
    /// A server loses the part of a frame that it reads together with the CONNECT.
    ///
    /// Source: `pinus-rpc`, `rpc-server/acceptors/mqtt-acceptor.js`
    loses_bytes_after_connect: bool = false, true;

    // The master.

    /// The master takes the result of `watchServer` out of `error`. Otherwise it takes it out of `body`.
    ///
    /// Source: `pomelo-admin` and `pinus-admin`, `modules/watchServer.js`
    watch_result_is_error: bool = true, false;
    /// The servers load the dictionary, protos and `adminServer` by `require`, so each may be a script.
    ///
    /// Source: `pinus-admin`, `util/utils.js`; `pinus`, `components/dictionary.js`, `components/protobuf.js`
    reads_scripts: bool = false, true;

    // Crons.

    /// The field `a/b` of a cron stands for the values whose remainder by `b` is `a`. Otherwise it stands for `a`,
    /// `a + b` and so on.
    ///
    /// Source: `pomelo-scheduler` and `pinus-scheduler`, `cronTrigger.js`
    cron_period_is_remainder: bool = true, false;
    /// The values of the field `a/b` begin at the first value of the field. Otherwise they begin at 0.
    ///
    /// Source: `pomelo-scheduler` and `pinus-scheduler`, `cronTrigger.js`
    cron_period_begins_in_range: bool = true, false;
}
