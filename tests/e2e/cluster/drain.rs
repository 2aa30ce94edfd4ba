//! A drain in a cluster: the links stay up until the last client has gone.

use super::*;

const KNOBS: Knobs = Knobs {
    tangelo: &["--set", "drain.timeout=1h"],
    genuine: &[],
};

mod pushes_and_kicks_of_backends_reach_clients_that_wait_in_a_drain {
    use super::*;
    use crate::harness::peers::wait_for;

    fn promise(dialect: Dialect) {
        let cluster = Cluster::start(dialect);
        let mut draining = Frontend::start(&cluster, Kind::TANGELOS[1], KNOBS);
        let other = Frontend::start(&cluster, Kind::TANGELOS[0], KNOBS);
        let mut observer = other.client(Transport::WebSocket);
        let id = draining.id();
        let mut idle = draining.client(Transport::Tcp);
        let mut clients = ["pushed to", "kicked"].map(|uid| {
            let mut client = draining.client(Transport::WebSocket);
            bind(&mut client, &uid.into());
            client.request(9, "chat.chatHandler.never", "{}");
            // The gateway has the request before this one.
            ask(&mut client, "echo", &json!({}));
            client
        });
        draining.terminate();
        assert_eq!(idle.next_package(), None);

        let [pushed, kicked] = &mut clients;
        let uids = json!([{"uid": "pushed to", "sid": id}]);
        let push = json!({"route": "onNews", "msg": {"n": 1}, "uids": uids});
        let answer = ask(&mut observer, "pushUids", &push);
        assert_eq!(answer, json!({"err": null, "fails": []}));
        assert_push(pushed, "onNews", r#"{"n":1}"#);
        let kick = json!({"frontendId": id, "uid": "kicked", "reason": "late"});
        assert_eq!(ask(&mut observer, "kickUid", &kick)["err"], Value::Null);
        assert_eq!(kicked.wait_kick(), "late");

        let is_known = |observer: &mut Client| {
            let servers = ask(observer, "servers", &json!({}));
            let ids = servers["ids"].as_array().expect("a list");
            ids.contains(&json!(id))
        };
        assert!(is_known(&mut observer));
        drop(clients);
        assert_eq!(draining.wait_exit(), Some(0));
        wait_for("the end of its membership", || {
            (!is_known(&mut observer)).then_some(())
        });
    }

    in_both_dialects!(promise);
}
