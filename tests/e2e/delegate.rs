//! The connector's own JavaScript handlers go on in a backend of another type, without an edit.

use serde_json::{Value, json};
use tangelo::{Config, Gateway};

use crate::frontend::{Frontend, Kind, Knobs};
use crate::peers::{Cluster, Dialect};

const ENTER: &str = "connector.entryHandler.enter";
const ROOM: &str = "connector.entryHandler.room";

/// The genuine connector runs its handlers itself, tangelo has the backends do it: a client sees no
/// other difference.
fn a_delegate_runs_the_handlers(dialect: Dialect) {
    const KNOBS: Knobs = Knobs {
        tangelo: &["--set", "delegate=chat"],
        genuine: &[],
    };
    let cluster = Cluster::shared(dialect);
    for kind in [Kind::Genuine].into_iter().chain(Kind::TANGELOS) {
        let frontend = Frontend::start(cluster, kind, KNOBS);
        for (number, transport) in kind.transports().iter().enumerate() {
            let mut client = frontend.client(*transport);
            let uid = format!("{}-{number}", frontend.id());
            let body = json!({"uid": uid, "room": [1, {"x": "é"}]}).to_string();
            let mut entered: Value =
                serde_json::from_str(&client.request_text(ENTER, body)).expect("JSON");
            let by = entered["by"].take();
            let expected = if kind.is_tangelo() {
                "chat"
            } else {
                "connector"
            };
            assert_eq!(by, expected, "{kind}");
            let route = match dialect {
                Dialect::Pomelo => json!({"by": null, "route": ENTER, "uid": uid}),
                Dialect::Pinus => json!({"by": null, "uid": uid}),
            };
            assert_eq!(entered, route, "{kind}");
            // The values are the session's.
            let room = client.request_text(ROOM, "{}");
            let expected = json!({"uid": uid, "room": [1, {"x": "é"}]}).to_string();
            assert_eq!(room, expected, "{kind}");
            let missing = client.request_text("connector.entryHandler.nobody", "{}");
            assert_eq!(missing, r#"{"code":500}"#, "{kind}");
            client.request(9, "connector.entryHandler.constructor", "{}");
            assert_eq!(client.wait_kick(), "attack", "{kind}");
        }
    }
}

#[test]
fn a_delegate_runs_the_handlers_in_pomelo() {
    a_delegate_runs_the_handlers(Dialect::Pomelo);
}

#[test]
fn a_delegate_runs_the_handlers_in_pinus() {
    a_delegate_runs_the_handlers(Dialect::Pinus);
}

#[test]
fn a_server_does_not_delegate_to_itself() {
    let config = Config {
        delegate: Some("connector".into()),
        ..Config::default()
    };
    let error = Gateway::new(config).start().err().expect("an error");
    let text = error.to_string();
    assert!(
        text.starts_with("delegate: \"connector\" is the own"),
        "{text}"
    );
}
