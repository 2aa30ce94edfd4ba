//! Servers come and go, the master too, and the frontend itself.

use serde_json::{Value, json};

use super::*;
use crate::harness::client::HANG_GUARD;
use crate::harness::peers::{BACKENDS, MASTER, wait_for};

promises! { shared:
    the_first_request_is_answered,
}

promises! { own:
    a_backend_that_died_and_came_back_is_used_again,
    a_backend_is_added_and_removed_while_all_runs,
    the_master_is_restarted_and_no_client_notices,
    a_frontend_that_is_terminated_leaves_the_cluster,
    a_frontend_is_listed_and_stopped_by_the_command_line,
}

/// One client for each transport of the frontend.
fn clients_of(frontend: &Frontend<'_>) -> Vec<Client> {
    let transports = frontend.kind().transports().iter();
    transports
        .map(|transport| frontend.client(*transport))
        .collect()
}

/// Clients with these uids, over every transport in turn.
fn bound_to<const N: usize>(frontend: &Frontend<'_>, uids: [Value; N]) -> [(Value, Client); N] {
    let mut transports = frontend.kind().transports().iter().cycle();
    uids.map(|uid| {
        let transport = transports.next().expect("at least one");
        let mut client = frontend.client(*transport);
        bind(&mut client, &uid);
        (uid, client)
    })
}

/// Lets a backend push to a client with this uid, asked by a client that the backend serves.
#[track_caller]
fn push_through(asking: &mut Client, frontend: &str, (uid, client): &mut (Value, Client)) {
    let push = json!({"route": "onLife", "msg": {}, "uids": [{"uid": uid, "sid": frontend}]});
    let answer = ask(asking, "pushUids", &push);
    assert_eq!(answer, json!({"err": null, "fails": []}));
    assert_push(client, "onLife", "{}");
}

/// Uids in the table of the default route, with their server among two and among three.
fn routes(dialect: Dialect) -> [(Value, &'static str, &'static str); 8] {
    let table = |pomelo, pinus| match dialect {
        Dialect::Pomelo => pomelo,
        Dialect::Pinus => pinus,
    };
    let (one, two, three) = ("chat-1", "chat-2", "chat-3");
    let row = |uid, (of_two, of_three)| (uid, of_two, of_three);
    [
        row(json!("1"), (two, three)),
        row(json!(10_001), (two, two)),
        row(json!("10001"), (two, two)),
        row(json!("alice"), (two, three)),
        row(json!("bob"), (one, three)),
        // From here on the two checksums differ.
        row(json!("a"), table((two, two), (two, one))),
        row(json!("é"), table((two, three), (one, three))),
        row(json!("张三"), table((two, two), (one, two))),
    ]
}

/// Whoever says that he listens knows the backends already, as a genuine connector does.
fn the_first_request_is_answered(setup: &mut Setup<'_>) {
    let kind = setup.frontend.kind();
    for _ in 0..3 {
        let cluster = Cluster::shared(setup.dialect());
        let frontend = Frontend::listening(cluster, kind, Knobs::default());
        for _ in 0..12 {
            let mut client = frontend.client(setup.transport);
            assert_eq!(whoami(&mut client)["server"], "chat-1");
        }
    }
}

fn a_backend_that_died_and_came_back_is_used_again(cluster: &Cluster, kind: Kind) {
    let frontend = Frontend::start(cluster, kind, Knobs::default());
    let [mut alice, mut bob] = bound_to(&frontend, ["alice", "bob"].map(Value::from));
    for client in &mut clients_of(&frontend) {
        // In the list of two, bob's is the first and alice's the second.
        assert_eq!(whoami(client)["server"], "chat-1");
        assert_eq!(whoami(&mut alice.1)["server"], "chat-2");
        assert_eq!(whoami(&mut bob.1)["server"], "chat-1");
        // It opens its own connection to the frontend.
        push_through(client, frontend.id(), &mut alice);

        cluster.kill("chat-1");
        cluster.wait_until_forgotten("chat-1");
        for client in [&mut *client, &mut alice.1, &mut bob.1] {
            wait_until_served_by(client, "chat-2");
        }
        push_through(client, frontend.id(), &mut bob);

        // It comes back as the last of the list.
        cluster.add_backend("chat-1");
        wait_until_served_by(&mut alice.1, "chat-1");
        assert_eq!(whoami(client)["server"], "chat-2");
        assert_eq!(whoami(&mut bob.1)["server"], "chat-2");
        push_through(&mut alice.1, frontend.id(), &mut bob);
        push_through(&mut bob.1, frontend.id(), &mut alice);

        // As it was, for the next client.
        cluster.restart("chat-2");
        wait_until_served_by(&mut alice.1, "chat-2");
        assert_eq!(whoami(client)["server"], "chat-1");
    }
}

fn a_backend_is_added_and_removed_while_all_runs(cluster: &Cluster, kind: Kind) {
    const ALICE: usize = 3;
    let frontend = Frontend::start(cluster, kind, Knobs::default());
    let routes = routes(frontend.dialect());
    let mut clients = bound_to(&frontend, routes.each_ref().map(|(uid, ..)| uid.clone()));
    for _ in 0..2 {
        for ((_, of_two, _), (uid, client)) in routes.iter().zip(&mut clients) {
            assert_eq!(whoami(client)["server"], *of_two, "{uid}");
        }
        cluster.add_backend("chat-3");
        wait_until_served_by(&mut clients[ALICE].1, "chat-3");
        for ((_, _, of_three), (uid, client)) in routes.iter().zip(&mut clients) {
            assert_eq!(whoami(client)["server"], *of_three, "{uid}");
        }
        // It knows the frontend that was there before it.
        let (others, [alice, ..]) = clients.split_at_mut(ALICE) else {
            panic!("there are more than {ALICE}");
        };
        push_through(&mut alice.1, frontend.id(), &mut others[0]);

        cluster.remove("chat-3");
        wait_until_served_by(&mut clients[ALICE].1, "chat-2");
    }
    for client in &mut clients_of(&frontend) {
        assert_eq!(whoami(client)["server"], "chat-1");
        assert_nothing_more(client);
    }
}

fn the_master_is_restarted_and_no_client_notices(cluster: &Cluster, kind: Kind) {
    let frontend = Frontend::start(cluster, kind, Knobs::default());
    // The frontend must join before the master stops: the list of a new master is empty at first.
    cluster.wait_until_listed(frontend.id());
    let mut named = bound_to(&frontend, ["alice", "bob"].map(Value::from));
    let mut clients = clients_of(&frontend);
    let mut all_can_be_reached = |named: &mut [(Value, Client)]| {
        for client in &mut clients {
            for named in &mut *named {
                push_through(client, frontend.id(), named);
            }
        }
    };
    all_can_be_reached(&mut named);
    cluster.stop_master();
    for _ in 0..20 {
        all_can_be_reached(&mut named);
        assert_eq!(whoami(&mut named[0].1)["server"], "chat-2");
        assert_eq!(whoami(&mut named[1].1)["server"], "chat-1");
    }

    cluster.start_master();
    let all = [BACKENDS[0], BACKENDS[1], frontend.id()];
    let deadline = Instant::now() + HANG_GUARD;
    while !all
        .iter()
        .all(|id| cluster.is_listed(id) && cluster.is_known(id))
    {
        assert!(Instant::now() < deadline, "not all of {all:?} came back");
        // They come back one by one. A genuine frontend forgets those who are late.
        for (uid, client) in named.iter_mut().filter(|_| kind.is_tangelo()) {
            let server = &whoami(client)["server"];
            assert!(BACKENDS.iter().any(|id| server == id), "{uid}: {server}");
        }
    }
    assert!(cluster.cli(&["list"]).contains(frontend.id()));
    // The two are in the list in the order in which they came back, so alice's and bob's are
    // these two in either order.
    let both = ["chat-1", "chat-2"];
    let served = named
        .each_mut()
        .map(|(_, client)| wait_until_served(client, &both));
    assert_ne!(served[0], served[1], "the list has both");
    all_can_be_reached(&mut named);

    // The frontend hears of later changes: of three servers, the third serves alice and bob.
    cluster.add_backend("chat-3");
    for (_, client) in &mut named {
        wait_until_served_by(client, "chat-3");
    }
    all_can_be_reached(&mut named);
}

fn a_frontend_that_is_terminated_leaves_the_cluster(cluster: &Cluster, kind: Kind) {
    let mut last_id = None;
    // The second one takes the place and the name of the first one.
    for _ in 0..2 {
        let mut frontend = Frontend::start(cluster, kind, Knobs::default());
        let id = frontend.id();
        assert!(last_id.is_none_or(|last| last == id), "the same id");
        last_id = Some(id);
        cluster.wait_until_listed(id);
        let mut named = bound_to(&frontend, ["alice", "bob"].map(Value::from));
        let mut clients = clients_of(&frontend);
        for client in &mut clients {
            for named in &mut named {
                push_through(client, id, named);
            }
        }

        frontend.terminate();
        cluster.wait_until_forgotten(id);
        cluster.wait_until_unlisted(id);
        let named = named.into_iter().map(|(_, client)| client);
        for mut client in named.chain(clients) {
            while client.next_package().is_some() {}
        }
        // A genuine one does not catch the signal.
        let code = kind.is_tangelo().then_some(0);
        assert_eq!(frontend.wait_exit(), code);
    }
}

fn a_frontend_is_listed_and_stopped_by_the_command_line(cluster: &Cluster, kind: Kind) {
    let mut frontend = Frontend::start(cluster, kind, Knobs::default());
    let mut clients = clients_of(&frontend);
    let (id, pid) = (frontend.id(), frontend.pid());

    let printed = cluster.cli(&["list"]);
    let rows: Vec<Vec<&str>> = printed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let head = [
        "serverId",
        "serverType",
        "pid",
        "rss(M)",
        "heapTotal(M)",
        "heapUsed(M)",
        "uptime(m)",
    ];
    assert!(rows.iter().any(|row| row == &head), "{printed}");
    for server in BACKENDS.into_iter().chain([MASTER]) {
        assert!(
            rows.iter().any(|row| row.first() == Some(&server)),
            "{printed}"
        );
    }
    let mut own = rows.iter().filter(|row| row.first() == Some(&id));
    let (Some([_, of_type, own_pid, figures @ ..]), None) =
        (own.next().map(Vec::as_slice), own.next())
    else {
        panic!("one row for {id}: {printed}");
    };
    assert_eq!(
        (*of_type, *own_pid),
        ("connector", pid.to_string().as_str())
    );
    assert_eq!(figures.len(), 4, "{printed}");
    for figure in figures {
        assert_figure(figure);
    }

    // The same, as it was sent.
    let listed = cluster.wait_until_listed(id);
    assert_eq!(
        (&listed["serverId"], &listed["serverType"]),
        (&json!(id), &json!("connector"))
    );
    assert_eq!(listed["pid"], pid);
    for name in ["rss", "heapTotal", "heapUsed", "uptime"] {
        assert_figure(listed[name].as_str().expect("figures are texts"));
    }
    let rss = listed["rss"]
        .as_str()
        .and_then(|rss| rss.parse::<f64>().ok());
    assert!(rss.is_some_and(|megabytes| megabytes > 1.0), "{listed}");

    cluster.cli(&["stop", id]);
    assert_eq!(frontend.wait_exit(), Some(0));
    for client in &mut clients {
        while client.next_package().is_some() {}
    }
    cluster.wait_until_forgotten(id);
    cluster.wait_until_unlisted(id);
}

/// A number with two decimals.
#[track_caller]
fn assert_figure(text: &str) {
    let decimals = text.split_once('.').map(|(_, decimals)| decimals.len());
    assert!(text.parse::<f64>().is_ok() && decimals == Some(2), "{text}");
}

mod a_gateway_may_be_there_before_its_master {
    use super::*;

    /// A genuine connector ends when its master is not there as it starts.
    fn promise(dialect: Dialect) {
        for kind in Kind::TANGELOS {
            let cluster = Cluster::idle(dialect);
            let frontend = Frontend::start(&cluster, kind, Knobs::default());
            let mut clients = clients_of(&frontend);
            for client in &mut clients {
                assert_eq!(whoami(client), json!({"code": 500}));
            }
            cluster.start_master();
            for id in BACKENDS {
                cluster.add_backend(id);
            }
            cluster.wait_until_listed(frontend.id());
            cluster.wait_until_known(frontend.id());
            let mut alice = bound_when_served(&frontend);
            for client in &mut clients {
                wait_until_served_by(client, "chat-1");
                push_through(client, frontend.id(), &mut alice);
            }
        }
    }

    fn bound_when_served(frontend: &Frontend<'_>) -> (Value, Client) {
        let mut client = frontend.client(Transport::Tcp);
        wait_until_served_by(&mut client, "chat-1");
        bind(&mut client, &json!("alice"));
        wait_until_served_by(&mut client, "chat-2");
        (json!("alice"), client)
    }

    in_both_dialects!(promise);
}

mod a_gateway_that_was_stopped_for_a_while_comes_back_by_itself {
    use std::thread;

    use super::*;

    const KNOBS: Knobs = Knobs {
        tangelo: &["--set", "client.heartbeat=3s"],
        genuine: &[],
    };

    /// A genuine connector cuts its clients.
    fn promise(dialect: Dialect) {
        let cluster = Cluster::start(dialect);
        for kind in Kind::TANGELOS {
            after(Duration::from_secs(8), &cluster, kind);
        }
    }

    /// Long enough for peers and master to give it up:
    /// `cargo test --test e2e comes_back_by_itself::after_minutes -- --ignored`
    #[test]
    #[ignore = "takes some minutes"]
    fn after_minutes() {
        for dialect in [Dialect::Pomelo, Dialect::Pinus] {
            after(
                Duration::from_secs(200),
                &Cluster::start(dialect),
                Kind::TANGELOS[1],
            );
        }
    }

    fn after(pause: Duration, cluster: &Cluster, kind: Kind) {
        let mut frontend = Frontend::start(cluster, kind, KNOBS);
        let id = frontend.id();
        let mut clients = clients_of(&frontend);
        let mut named = bound_to(&frontend, ["alice", "bob"].map(Value::from));
        for client in &mut clients {
            for named in &mut named {
                push_through(client, id, named);
            }
        }
        let gateway = frontend.gateway().expect("the frontend is tangelo");
        gateway.signal("STOP");
        for client in &mut clients {
            client.request(50, "chat.chatHandler.whoami", "{}");
        }
        for _ in 0..pause.as_secs() {
            let named = named.iter_mut().map(|(_, client)| client);
            for client in named.chain(&mut clients) {
                client.send_package(HEARTBEAT, b"");
            }
            thread::sleep(Duration::from_secs(1));
        }
        gateway.signal("CONT");
        for client in &mut clients {
            client.wait_response(50);
        }
        assert!(gateway.wait_counter("pauses", 1) >= 1);
        assert_eq!(gateway.counters().get("closed_heartbeat_timeout"), None);

        cluster.wait_until_listed(id);
        cluster.wait_until_known(id);
        wait_until_served_by(&mut named[0].1, "chat-2");
        wait_until_served_by(&mut named[1].1, "chat-1");
        for client in &mut clients {
            wait_until_served_by(client, "chat-1");
            for named in &mut named {
                push_through(client, id, named);
            }
        }
    }

    in_both_dialects!(promise);
}

mod a_gateway_without_the_right_token_is_refused {
    use super::*;
    use crate::harness::gateway::Gateway;

    /// A genuine connector lives on, outside the cluster.
    fn promise(dialect: Dialect) {
        let cluster = Cluster::shared(dialect);
        let connector = cluster.take_connector();
        for tokens in [
            json!([{"type": "connector", "token": "guessed"}]),
            json!([{"type": "chat", "token": "the token of each chat"}]),
        ] {
            let project = cluster.project_with("adminServer.json", &tokens);
            let project = project.to_str().expect("a path in UTF-8");
            let (code, printed) = Gateway::refused(&[
                "--app-dir",
                project,
                "--id",
                connector.id(),
                "--dialect",
                dialect.name(),
                "--listen",
                "127.0.0.1:0",
            ]);
            assert!(code.is_some_and(|code| code != 0), "{printed}");
            assert!(printed.contains("server auth failed"), "{printed}");
        }
    }

    in_both_dialects!(promise);
}

mod connections_and_logins_are_counted {
    use super::*;
    use crate::harness::rpc;

    const KNOBS: Knobs = Knobs {
        tangelo: &["--set", "client.max_connections=3"],
        genuine: &[],
    };

    /// A genuine connector loses a place for each client that it refuses.
    fn promise(dialect: Dialect) {
        for kind in Kind::TANGELOS {
            let mut frontend = Frontend::start(Cluster::shared(dialect), kind, KNOBS);
            let mut clients: Vec<Client> =
                (0..3).map(|_| frontend.client(Transport::Tcp)).collect();
            for _ in 0..5 {
                let mut refused = frontend.connect(Transport::Tcp);
                refused.send_package(crate::harness::client::HANDSHAKE, b"{}");
                assert!(refused.next_package().is_none());
            }
            assert_eq!(logins(&frontend, 3), Vec::<Value>::new());
            bind(&mut clients[0], &json!("ann"));
            bind(&mut clients[1], &json!(7));
            bind(&mut clients[2], &json!("ann"));
            assert_eq!(logins(&frontend, 3), [json!("ann"), json!(7)]);
            let unbound = ask(&mut clients[1], "unbind", &json!({"uid": 7}));
            assert_eq!(unbound["err"], Value::Null);
            assert_eq!(logins(&frontend, 3), [json!("ann")]);
            drop(clients);
            let gateway = frontend.gateway().expect("the frontend is tangelo");
            gateway.wait_counter("closed_left", 3);
            assert_eq!(logins(&frontend, 0), Vec::<Value>::new());
            for _ in 0..3 {
                frontend.client(Transport::WebSocket);
            }
        }
    }

    /// Returns the uids of the login list, and checks the number of connections.
    fn logins(frontend: &Frontend<'_>, connections: usize) -> Vec<Value> {
        let (id, cluster) = (frontend.id(), Cluster::shared(frontend.dialect()));
        let question = json!({"comd": "logins", "context": id});
        let answer = rpc::ask_master(cluster.rpc_address(MASTER), "watchServer", &question);
        let answer = answer.expect("the master asks the frontend");
        println!("{answer}");
        let statistics = &answer["msg"][id];
        assert_eq!(statistics["totalConnCount"], connections, "{answer}");
        let list = statistics["loginedList"].as_array().expect("a list");
        assert_eq!(statistics["loginedCount"], list.len(), "{answer}");
        for login in list {
            let address = login["address"].as_str().expect("a text");
            assert!(address.contains("127.0.0.1:"), "{login}");
            assert!(
                login["loginTime"]
                    .as_u64()
                    .is_some_and(|time| time > 1_700_000_000_000)
            );
        }
        list.iter().map(|login| login["uid"].clone()).collect()
    }

    in_both_dialects!(promise);
}

mod a_master_starts_and_restarts_it {
    use super::*;
    use crate::harness::gateway::Turn;

    /// Returns the program that an entry of servers.json names in `args`: the master runs it with the command line
    /// of the server behind it. It ends with its master.
    fn launcher(dialect: Dialect) -> String {
        format!(
            "const {{ spawn }} = require('child_process');\n\
             const args = [...process.argv.slice(2), '--dialect', '{}', '--shards', '1'];\n\
             const tangelo = spawn('{}', args, {{ stdio: 'inherit' }});\n\
             tangelo.on('exit', (code) => process.exit(code === null ? 1 : code));\n\
             const master = process.ppid;\n\
             setInterval(() => process.ppid === master || tangelo.kill(), 100);\n",
            dialect.name(),
            env!("CARGO_BIN_EXE_tangelo"),
        )
    }

    fn promise(dialect: Dialect) {
        let cluster = Cluster::start(dialect);
        let path = std::path::Path::new(cluster.app_dir()).join("launcher.js");
        std::fs::write(path, launcher(dialect)).expect("a file of our own");
        let connector = cluster.take_connector();
        let (id, address) = (connector.id(), cluster.client_address(connector.id()));
        let _turn = Turn::shared();
        let words = [
            format!("id={id}"),
            "serverType=connector".to_owned(),
            "host=127.0.0.1".to_owned(),
            format!("port={}", cluster.rpc_address(id).port()),
            format!("clientPort={}", address.port()),
            "frontend=true".to_owned(),
            "args=launcher.js".to_owned(),
        ];
        let words = words.iter().map(String::as_str);
        cluster.cli(&std::iter::once("add").chain(words).collect::<Vec<_>>());

        let listed = cluster.wait_until_listed(id);
        cluster.wait_until_known(id);
        let mut client = Client::tcp(address).open();
        bind(&mut client, &json!("ann"));
        assert_eq!(whoami(&mut client)["uid"], "ann");

        cluster.cli(&["restart", "-i", id]);
        while client.next_package().is_some() {}
        wait_for("another process", || {
            let again = cluster.wait_until_listed(id);
            (again["pid"] != listed["pid"]).then_some(())
        });
        cluster.wait_until_known(id);
        let mut client = Client::tcp(address).open();
        assert_eq!(whoami(&mut client)["uid"], Value::Null);

        cluster.cli(&["stop", id]);
        while client.next_package().is_some() {}
        cluster.wait_until_forgotten(id);
        cluster.wait_until_unlisted(id);
    }

    in_both_dialects!(promise);
}
