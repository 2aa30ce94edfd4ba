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

mod a_rolling_restart_loses_no_request_that_was_sent_after_a_reconnect {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, PoisonError};

    use super::*;
    use crate::harness::client::{DATA, End};
    use crate::harness::peers::wait_for;

    const PLAYERS: usize = 12;
    const GATEWAYS: usize = 2;
    /// Time between an answer and the next request of a player.
    const THINK: Duration = Duration::from_millis(20);

    /// The world of the players: a balancer that knows the gateways, and the gateway that has answered each player on
    /// its present connection.
    struct World {
        open: Mutex<Vec<SocketAddr>>,
        settled: [Mutex<Option<SocketAddr>>; PLAYERS],
        is_over: AtomicBool,
    }

    impl World {
        fn open(&self) -> Vec<SocketAddr> {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.clone()
        }

        fn settle(&self, player: usize, address: Option<SocketAddr>) {
            let settled = self.settled[player].lock();
            *settled.unwrap_or_else(PoisonError::into_inner) = address;
        }

        /// Waits until an open gateway has answered each player.
        fn wait_settled(&self) {
            let open = self.open();
            wait_for("answers for all players", || {
                let is_settled = |of: &Mutex<Option<SocketAddr>>| {
                    let address = *of.lock().unwrap_or_else(PoisonError::into_inner);
                    address.is_some_and(|address| open.contains(&address))
                };
                self.settled.iter().all(is_settled).then_some(())
            });
        }

        /// Asks again and again, and comes back when its connection ends. Returns its number of connections.
        fn play(&self, player: usize) -> usize {
            let mut connections = 0;
            loop {
                let open = self.open();
                let address = open[(player + connections) % open.len()];
                connections += 1;
                let mut client = Client::websocket(address).open();
                let mut answers = 0;
                while let Some(answer) = answer(&mut client, answers + 1) {
                    assert!(answer.contains("\"n\":"), "player {player}: {answer}");
                    answers += 1;
                    self.settle(player, Some(address));
                    if self.is_over.load(Ordering::Acquire) {
                        return connections;
                    }
                    // A drain closes a client that has no request in flight.
                    std::thread::sleep(THINK);
                }
                assert!(answers > 0, "player {player} lost its first request");
                assert_eq!(client.end(), Some(End::CloseFrame(Some(1001))));
                self.settle(player, None);
            }
        }
    }

    /// Asks, and returns the answer, or `None` when the connection ends first.
    fn answer(client: &mut Client, id: u32) -> Option<String> {
        client.request(id, "chat.chatHandler.echo", format!("{{\"n\":{id}}}"));
        loop {
            let package = client.next_package()?;
            if package.kind == DATA {
                return Some(String::from_utf8_lossy(&package.body).into_owned());
            }
        }
    }

    fn promise(dialect: Dialect) {
        let cluster = Cluster::start(dialect);
        let start = |shards| Frontend::start(&cluster, Kind::Tangelo { shards }, Knobs::default());
        let mut gateways: Vec<Frontend<'_>> = (1..=GATEWAYS).map(start).collect();
        let world = World {
            open: Mutex::new(gateways.iter().map(Frontend::address).collect()),
            settled: Default::default(),
            is_over: AtomicBool::new(false),
        };
        std::thread::scope(|scope| {
            let players = [(); PLAYERS];
            let mut player = 0..;
            let players = players.map(|()| {
                let player = player.next().expect("numbers go on");
                let world = &world;
                scope.spawn(move || world.play(player))
            });
            world.wait_settled();
            for _ in 0..GATEWAYS {
                // The oldest one; a balancer takes it out first.
                let mut old = gateways.remove(0);
                let address = old.address();
                let change = |change: &dyn Fn(&mut Vec<SocketAddr>)| {
                    change(&mut world.open.lock().unwrap_or_else(PoisonError::into_inner));
                };
                change(&|open| open.retain(|known| *known != address));
                old.terminate();
                assert_eq!(old.wait_exit(), Some(0));
                world.wait_settled();
                let shards = match old.kind() {
                    Kind::Tangelo { shards } => shards,
                    Kind::Genuine => unreachable!("both are tangelos"),
                };
                drop(old);
                let new = start(shards);
                let address = new.address();
                change(&|open| open.push(address));
                gateways.push(new);
            }
            world.is_over.store(true, Ordering::Release);
            let connections =
                players.map(|player| player.join().expect("a player that loses nothing"));
            // Each restart closes the clients of one gateway.
            let reconnects: usize = connections.iter().map(|count| count - 1).sum();
            assert!(reconnects >= PLAYERS, "{connections:?}");
        });
    }

    in_both_dialects!(promise);
}

mod a_drain_of_many_clients {
    use std::net::TcpStream;

    use super::*;
    use crate::harness::admin::AdminPort;
    use crate::harness::ledger;
    use crate::harness::peers::wait_for;

    /// Its end does not depend on the speed of the machine.
    const PATIENT: Knobs = Knobs {
        tangelo: &[
            "--set",
            "admin.listen=127.0.0.1:0",
            "--set",
            "drain.timeout=1h",
        ],
        genuine: &[],
    };
    const USUAL: Knobs = Knobs {
        tangelo: &["--set", "admin.listen=127.0.0.1:0"],
        genuine: &[],
    };

    /// How the clients left: the number that had at each look, and the time until the process had ended.
    struct Seen {
        left: Vec<(Instant, u64)>,
        lasted: Duration,
    }

    #[test]
    fn answers_each_request_and_cuts_nobody() {
        drain(500, 50, PATIENT);
    }

    #[test]
    #[ignore = "5,000 connections, and a look at the clock: for a machine that does nothing else"]
    fn closes_evenly_and_ends_in_time() {
        const CLIENTS: usize = 5_000;
        const WAITING: usize = 500;
        let seen = drain(CLIENTS, WAITING, USUAL);
        assert!(seen.lasted < Duration::from_secs(8), "{:?}", seen.lasted);
        let idle = (CLIENTS - WAITING) as u64;
        // Half of drain.timeout.
        let mean = idle / 4;
        let mut most = 0;
        for (at, (begin, before)) in seen.left.iter().enumerate() {
            let second = seen.left[at..].iter();
            let second = second.take_while(|(end, _)| *end - *begin <= Duration::from_secs(1));
            most = second.map(|(_, left)| left - before).fold(most, u64::max);
        }
        println!("most in a second {most}, mean {mean}, {:?}", seen.lasted);
        assert!(most <= 2 * mean, "{most} in a second: {:?}", seen.left);
    }

    fn drain(clients: usize, waiting: usize, knobs: Knobs) -> Seen {
        let cluster = Cluster::shared(Dialect::Pomelo);
        let mut draining = Frontend::start(cluster, Kind::Tangelo { shards: 2 }, knobs);
        let other = Frontend::start(cluster, Kind::TANGELOS[0], Knobs::default());
        let mut observer = other.client(Transport::WebSocket);
        let (id, address) = (draining.id(), draining.address());
        let port = AdminPort::of(draining.gateway().expect("it is a gateway"));
        let sum = |name: &str| -> u64 {
            let text = port.get("/metrics").body;
            let lines = text.lines().filter(|line| line.starts_with(name));
            let values = lines.map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
            values.sum::<Option<u64>>().expect("numbers")
        };
        let transports = [Transport::Tcp, Transport::WebSocket].into_iter().cycle();
        let mut clients: Vec<Client> = transports
            .take(clients)
            .map(|transport| draining.client(transport))
            .collect();
        let (waiting, idle) = clients.split_at_mut(waiting);
        for (n, client) in waiting.iter_mut().enumerate() {
            client.request(9, "chat.chatHandler.hold", format!("{{\"n\":{n}}}"));
        }
        wait_for("all requests at the backend", || {
            let held = ask(&mut observer, "countHeld", &json!({}));
            (held["n"] == waiting.len()).then_some(())
        });
        for (client, uid) in waiting.iter_mut().zip(["pushed to", "kicked"]) {
            bind(client, &uid.into());
        }

        let begun = Instant::now();
        draining.terminate();
        wait_for("a closed port", || {
            TcpStream::connect(address).is_err().then_some(())
        });
        assert_eq!(port.get("/readyz").status, 503);
        let accepted = sum("tangelo_connections_accepted_total{");
        let mut left = Vec::new();
        wait_for("the ends of the clients without a request", || {
            let count = sum("tangelo_connections_closed_total{reason=\"drain\"");
            left.push((Instant::now(), count));
            (count >= idle.len() as u64).then_some(())
        });
        for client in idle {
            assert_eq!(client.next_package(), None);
        }

        // The last slice.
        let uids = json!([{"uid": "pushed to", "sid": id}]);
        let push = json!({"route": "onNews", "msg": {"n": 1}, "uids": uids});
        let answer = ask(&mut observer, "pushUids", &push);
        assert_eq!(answer, json!({"err": null, "fails": []}));
        assert_push(&mut waiting[0], "onNews", r#"{"n":1}"#);
        let kick = json!({"frontendId": id, "uid": "kicked", "reason": "late"});
        assert_eq!(ask(&mut observer, "kickUid", &kick)["err"], Value::Null);
        assert_eq!(waiting[1].wait_kick(), "late");

        observer.request(1, "chat.chatHandler.release", "{}");
        for (n, client) in waiting.iter_mut().enumerate().filter(|(n, _)| *n != 1) {
            let answer = String::from_utf8(client.wait_response(9)).expect("JSON");
            assert_eq!(answer, format!("{{\"held\":{n}}}"));
            assert_eq!(client.next_package(), None);
        }
        assert_eq!(draining.wait_exit(), Some(0));
        let lasted = begun.elapsed();

        let printed = draining.gateway().expect("it is a gateway").printed();
        let count = clients.len();
        let begins = format!("SIGTERM begins the drain clients={count}\n");
        assert!(printed.contains(&begins), "{printed}");
        let (_, last) = printed
            .rsplit_once("counters ")
            .expect("they come at the end");
        let counters = ledger::parsed(last.lines().next().unwrap_or_default());
        let counter = |name: &str| counters.get(name).copied().unwrap_or_default();
        assert_eq!(counter("connections_accepted"), accepted);
        assert_eq!(counter("clients_cut"), 0);
        let ended = counter("closed_drain") + counter("closed_kicked_by_server");
        assert!(ended >= count as u64, "{counters:?}");
        Seen { left, lasted }
    }
}
