//! The servers that may open a connection to the RPC port.

use std::net::SocketAddr;

use serde_json::json;
use tangelo::Config;
use tangelo::config::{self, RpcAllow, Server};
use tangelo::handler::Router;

use crate::harness::free_address;
use crate::harness::inside::Inside;
use crate::harness::rpc::Rpc;

/// A gateway that knows one other server, on this host.
fn start(allow: RpcAllow, host: &str) -> (Inside, SocketAddr) {
    let listen = free_address();
    let mut config = Config {
        servers: vec![Server {
            id: "chat-1".into(),
            server_type: "chat".into(),
            host: host.into(),
            port: free_address().port(),
            ..Server::default()
        }],
        ..Config::default()
    };
    config.rpc = config::Rpc {
        listen: Some(listen),
        allow,
        ..config.rpc
    };
    (Inside::start(2, config, Router::new), listen)
}

#[test]
fn with_allow_cluster_only_listed_hosts_may_call() {
    let cases = [
        (RpcAllow::Any, "192.0.2.1", true),
        (RpcAllow::Cluster, "127.0.0.1", true),
        (RpcAllow::Cluster, "localhost", true),
        (RpcAllow::Cluster, "192.0.2.1", false),
    ];
    for (allow, host, may) in cases {
        let (inside, listen) = start(allow, host);
        let mut rpc = Rpc::connect(listen).expect("the port is open");
        if may {
            let found = rpc.call("sessionRemote", "getBackendSessionBySid", &json!([1]));
            assert_eq!(found.expect("an answer"), json!([]), "{allow:?} {host}");
        } else {
            assert!(!rpc.wait_end(), "{host}: a refused server got a DISCONNECT");
        }
        let counted = ["peers_accepted", "peers_refused"].map(|name| inside.counter(name));
        assert_eq!(
            counted,
            [u64::from(may), u64::from(!may)],
            "{allow:?} {host}"
        );
        inside.stop();
    }
}
