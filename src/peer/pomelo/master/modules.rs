//! Requests of the master, by module.

use serde_json::{Value, json};

use super::{
    Asked, FiguresQuestion, MasterEvent, Monitor, ServerInfo, ServerList, StatisticsQuestion,
    UsageQuestion,
};
use super::{NODE_INFO, ONLINE_USER, SYSTEM_INFO, entry, figures};
use crate::wire::json;
use crate::wire::pomelo::admin::{self, AdminCall};

/// Answers of the watcher: done, and a member is missing.
pub(super) const DONE: &[u8] = b"1";
const MISSING: &[u8] = b"0";
/// Result of every script, in JSON.
const NO_SCRIPTS: &[u8] = b"\"this server is tangelo, which runs no scripts\"";

impl Monitor {
    /// A request, or without `id` a notify.
    pub(super) fn call(
        &mut self,
        id: Option<&Value>,
        call: &AdminCall,
        out: &mut Vec<u8>,
    ) -> Option<MasterEvent> {
        let body = &call.body;
        match (call.module.as_str(), id) {
            ("__monitorwatcher__", _) => Some(self.watcher(id, body, out)),
            ("__console__", _) => Some(self.console(id, body, out)),
            ("watchServer", Some(id)) => self.watch(id, body, out),
            (ONLINE_USER, None) => Some(MasterEvent::AskStatistics(StatisticsQuestion {
                to: None,
                connection: self.connection,
            })),
            ("RestartNotifyModule", Some(id)) => self.restart_notify(id, body, out),
            ("scripts", Some(id)) => {
                admin::write_response(out, id, b"null", Some(NO_SCRIPTS));
                Some(MasterEvent::Ignored("a script of the console"))
            }
            ("monitorLog", Some(id)) => {
                self.answer_no_lines(id, body.get("logfile"), out);
                Some(MasterEvent::Ignored("a log file for the console"))
            }
            (NODE_INFO, None) => Some(self.ask_usage(NODE_INFO)),
            (SYSTEM_INFO, None) => Some(self.ask_usage(SYSTEM_INFO)),
            (module, Some(id)) => {
                let mut error = Vec::new();
                json::write_string(&mut error, &format!("unknown moduleId:{module}"));
                admin::write_response(out, id, &error, None);
                Some(MasterEvent::Ignored("a request that no module takes"))
            }
            (_, None) => Some(MasterEvent::Ignored("a notify that no module takes")),
        }
    }

    /// Handles servers that join or leave. The answer, always in `error`, says whether the member was there.
    fn watcher(&mut self, id: Option<&Value>, body: &Value, out: &mut Vec<u8>) -> MasterEvent {
        let member = |name| body.get(name).filter(|value| admin::is_truthy(value));
        let known = match member("action").and_then(Value::as_str) {
            Some("addServer") => member("server").map(|server| self.added(server)),
            Some("removeServer") => member("id").map(|id| self.removed(id)),
            Some("replaceServer") => member("servers").map(|servers| match servers {
                Value::Object(servers) => {
                    MasterEvent::Replaced(ServerList::new(servers.clone(), &self.config.id))
                }
                _ => MasterEvent::Ignored("a list of servers that is not an object"),
            }),
            Some("startOver") => Some(MasterEvent::StartOver),
            _ => return MasterEvent::Ignored("an unknown action of the watcher"),
        };
        if let Some(id) = id {
            let answer = if known.is_some() { DONE } else { MISSING };
            admin::write_response(out, id, answer, None);
        }
        known.unwrap_or(MasterEvent::Ignored(
            "a message of the watcher without its member",
        ))
    }

    fn added(&self, server: &Value) -> MasterEvent {
        match ServerInfo::new(server.clone()) {
            Some(server) if server.id == self.config.id => MasterEvent::AddedSelf(server),
            Some(server) => MasterEvent::Added(server),
            None => MasterEvent::Ignored("a server without id, type, host or port"),
        }
    }

    fn removed(&mut self, id: &Value) -> MasterEvent {
        match entry::text(id) {
            Some(id) if id == self.config.id => {
                self.anew = true;
                MasterEvent::RegisterAnew
            }
            Some(id) => MasterEvent::Removed(id),
            None => MasterEvent::Ignored("a server id that is not a text"),
        }
    }

    /// Handles a signal of an operator. As pomelo: also of a notify where a request is usual, and the other
    /// way round; an unknown signal has no answer (`modules/console.js`).
    fn console(&self, id: Option<&Value>, body: &Value, out: &mut Vec<u8>) -> MasterEvent {
        let signal = body.get("signal").and_then(Value::as_str);
        match (signal, id) {
            (Some("list"), Some(id)) => MasterEvent::AskFigures(FiguresQuestion {
                to: self.asked(id),
                watch: false,
            }),
            (Some("stop"), _) => MasterEvent::Stop,
            (Some("kill"), _) => {
                self.answer_value(id, &json!(self.config.id), out);
                MasterEvent::Kill
            }
            (Some("restart"), _) => {
                self.answer_value(id, &self.config.info, out);
                MasterEvent::Restart
            }
            (Some("blacklist"), _) => MasterEvent::Blacklist(match body.get("blacklist") {
                Some(Value::Array(list)) => list.iter().filter_map(string).collect(),
                Some(one) => string(one).into_iter().collect(),
                None => Vec::new(),
            }),
            (Some("addCron" | "removeCron"), _) => {
                MasterEvent::Ignored("a cron, which is JavaScript")
            }
            _ => MasterEvent::Ignored("an unknown signal of the console"),
        }
    }

    /// Answers the shell of an administrator.
    fn watch(&self, id: &Value, body: &Value, out: &mut Vec<u8>) -> Option<MasterEvent> {
        match body.get("comd").and_then(Value::as_str) {
            Some("servers") => Some(MasterEvent::AskFigures(FiguresQuestion {
                to: self.asked(id),
                watch: true,
            })),
            Some("connections" | "logins") => {
                Some(MasterEvent::AskStatistics(StatisticsQuestion {
                    to: Some(self.asked(id)),
                    connection: self.connection,
                }))
            }
            // The rest shows or changes what only a JavaScript server has. Unlike pomelo: an
            // unknown command is answered, too, for without an answer the shell hangs.
            _ => {
                admin::write_response(out, id, b"null", Some(b"\"not supported\""));
                None
            }
        }
    }

    /// Pinus' master wants to know when a server that it has restarted is up.
    fn restart_notify(
        &mut self,
        id: &Value,
        body: &Value,
        out: &mut Vec<u8>,
    ) -> Option<MasterEvent> {
        if body.get("action").and_then(Value::as_str) != Some("afterStartCallback") {
            return Some(MasterEvent::Ignored(
                "an unknown action of RestartNotifyModule",
            ));
        }
        if self.recorded {
            admin::write_response(out, id, DONE, None);
        } else {
            // As pinus: only the last one is answered (`modules/restartNotifyModule.ts`).
            self.awaits_start = Some(id.clone());
        }
        None
    }

    /// Answers with an empty log file: the log goes to the output of the process. Unlike pomelo: also without
    /// the file's name, for the master throws on an `error`, and its console waits for ever.
    fn answer_no_lines(&self, id: &Value, logfile: Option<&Value>, out: &mut Vec<u8>) {
        let mut text = Vec::new();
        json::write_value(&mut text, &json!({"logfile": logfile, "dataArray": []}));
        let text = figures::of_server(&self.config.id, &text);
        admin::write_response(out, id, b"null", Some(&text));
    }

    fn ask_usage(&self, module: &'static str) -> MasterEvent {
        MasterEvent::AskUsage(UsageQuestion {
            module,
            connection: self.connection,
        })
    }

    fn asked(&self, request: &Value) -> Asked {
        Asked {
            request: request.clone(),
            connection: self.connection,
        }
    }

    fn answer_value(&self, id: Option<&Value>, value: &Value, out: &mut Vec<u8>) {
        if let Some(id) = id {
            let mut text = Vec::new();
            json::write_value(&mut text, value);
            admin::write_response(out, id, &text, None);
        }
    }

    /// A Pomelo master takes the result out of `error`, a Pinus master out of `body`, and each
    /// throws when it is in the other one.
    pub(super) fn answer_watch(&self, to: &Asked, result: &[u8], out: &mut Vec<u8>) {
        if self.expects(to.connection) {
            if self.config.dialect.watch_result_is_error() {
                admin::write_response(out, &to.request, result, None);
            } else {
                admin::write_response(out, &to.request, b"null", Some(result));
            }
        }
    }
}

fn string(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}
