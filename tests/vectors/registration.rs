//! A gateway joins the cluster of a captured connector: it is started from the files of that cluster or from the
//! command line of its master, and must send the master what the connector sent, byte for byte.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tangelo::config::Dialect;
use tangelo::gateway::load;
use tangelo::wire::pomelo::mqtt::{self, Packet};
use tangelo::{Config, Gateway};
use tempfile::TempDir;

use super::file::lines;
use super::server::start_gateway;
use super::transcript::{BYTES_MAX, Captured};

const ID: &str = "connector-1";
const MAIN: &str = "/srv/app/app.js";
const REMOTES: &str = "/srv/app/app/servers/connector/remote";

/// The connection of the captured connector, from its CONNECT on.
fn connection(text: &str) -> Vec<Captured> {
    let packets = lines::<Value>(text).into_iter();
    let packets = packets.filter(|line| line["hex"].is_string());
    let packets = packets.map(|line| serde_json::from_value(line).expect("a packet"));
    let ours = |packet: &Captured| packet.from == ID || packet.to == ID;
    packets.filter(ours).collect()
}

/// The files that the captured cluster was started from.
struct Project(TempDir);

impl Project {
    fn new(packets: &[Captured], master_port: u16) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let registered = &packets[2].json;
        let mut entry = registered["info"].clone();
        let fields = entry.as_object_mut().expect("an entry");
        // The rest comes from the command line or from the code of the server.
        for key in ["main", "env", "serverType", "remoterPaths", "handlerPaths"] {
            fields.shift_remove(key);
        }
        assert_eq!(fields["frontend"], "true", "a command line has texts");
        fields["frontend"] = true.into();
        let config = folder.path().join("config");
        fs::create_dir_all(&config).expect("a folder");
        for (name, json) in [
            (
                "servers.json",
                json!({"development": {"connector": [entry]}}),
            ),
            (
                "master.json",
                json!({"host": "127.0.0.1", "port": master_port}),
            ),
            (
                "adminServer.json",
                json!([{"type": "connector", "token": registered["token"]}]),
            ),
        ] {
            fs::write(config.join(name), json.to_string()).expect("a file");
        }
        Self(folder)
    }

    /// Reads the configuration of this project with these words in front.
    fn config(&self, words: &[&str], more: &[&str]) -> Config {
        let folder = self.0.path().to_str().expect("UTF-8");
        let own = [
            "--app-dir",
            folder,
            "--listen",
            "127.0.0.1:0",
            "--shards",
            "1",
        ];
        let args = [&["tangelo"], words, &own, more].concat();
        let config = load::from_args(args.into_iter().map(Into::into));
        let mut config = config.unwrap_or_else(|error| panic!("{error}"));
        // No server calls this one, and the captured port may be taken here.
        config.rpc.listen = None;
        config
    }
}

/// Takes the next packet off a socket.
fn next_packet(stream: &mut TcpStream, input: &mut Vec<u8>) -> Vec<u8> {
    loop {
        if let Some((_, bytes)) = mqtt::decode(input, BYTES_MAX).expect("MQTT") {
            return input.drain(..bytes).collect();
        }
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).expect("a packet in time");
        assert!(count > 0, "the gateway stays");
        input.extend_from_slice(&buffer[..count]);
    }
}

/// Replaces the digits of a CONNECT: the time of the start.
fn without_start_time(packet: &[u8]) -> Vec<u8> {
    let zero = |byte: &u8| if byte.is_ascii_digit() { b'0' } else { *byte };
    packet.iter().map(zero).collect()
}

fn publish(topic: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    mqtt::write_publish_on(&mut out, topic, |out| out.extend_from_slice(payload));
    out
}

/// Changes a captured registration: another process, and what `change` does to its description.
fn registration(captured: &Captured, change: impl Fn(&mut Value)) -> Vec<u8> {
    let payload = captured.payload();
    let mut value: Value = serde_json::from_slice(payload).expect("JSON");
    assert_eq!(
        publish(b"register", value.to_string().as_bytes()),
        captured.bytes()
    );
    value["pid"] = std::process::id().into();
    change(&mut value["info"]);
    publish(b"register", value.to_string().as_bytes())
}

/// Starts a gateway, plays the captured master for it, and compares.
fn joins(
    packets: &[Captured],
    listener: &TcpListener,
    config: Config,
    change: impl Fn(&mut Value),
) {
    let running = start_gateway(Gateway::new(config));
    let (mut stream, _) = listener.accept().expect("the gateway dials its master");
    let limit = Some(Duration::from_secs(30));
    stream.set_read_timeout(limit).expect("an open socket");
    let (mut input, mut sent) = (Vec::new(), 0);
    for captured in packets {
        if captured.to == ID {
            stream
                .write_all(captured.bytes())
                .expect("the gateway reads");
            continue;
        }
        sent += 1;
        let mut packet = next_packet(&mut stream, &mut input);
        let mut expected = captured.bytes().to_vec();
        match mqtt::decode(&expected, BYTES_MAX) {
            Ok(Some((Packet::Connect, _))) => {
                [packet, expected] = [packet, expected].map(|packet| without_start_time(&packet));
            }
            Ok(Some((
                Packet::Publish {
                    topic: b"register", ..
                },
                _,
            ))) => {
                expected = registration(captured, &change);
            }
            _ => {}
        }
        assert_eq!(
            packet.escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
    }
    assert!(
        sent >= 5,
        "CONNECT, registration, subscription, record, an answer"
    );
    assert!(input.is_empty(), "and nothing else");
    running.stopper().stop();
    running.join().expect("it ends in order");
}

fn main_of(project: &Project) -> String {
    let main = project.0.path().join("app.js");
    main.to_str().expect("UTF-8").to_owned()
}

#[test]
fn an_entry_of_a_file_registers_with_the_bytes_of_a_genuine_pomelo_server() {
    let packets = connection(include_str!("rpc/pomelo-master-startup.jsonl"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let project = Project::new(&packets, port);
    let config = project.config(&[], &["--id", ID]);
    let main = main_of(&project);
    joins(&packets, &listener, config, |info| {
        assert_eq!(info["main"], MAIN);
        info["main"] = main.as_str().into();
    });
}

#[test]
fn the_command_line_of_a_master_registers_with_the_bytes_of_a_genuine_pomelo_server() {
    let packets = connection(include_str!("rpc/pomelo-master-startup.jsonl"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let project = Project::new(&packets, port);
    let info = packets[2].json["info"].as_object().expect("an entry");
    let word = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("{key}={text}"),
        value => format!("{key}={value}"),
    };
    let words: Vec<String> = info.iter().skip(1).map(word).collect();
    let words = std::iter::once(MAIN).chain(words.iter().map(String::as_str));
    let config = project.config(&words.collect::<Vec<_>>(), &[]);
    joins(&packets, &listener, config, |_| {});
}

/// A genuine Pinus server also tells the folders of its JavaScript handlers and of the remotes of the framework.
#[test]
fn an_entry_of_a_file_registers_as_a_genuine_pinus_server_without_its_folders() {
    let packets = connection(include_str!("rpc/pinus-master-startup.jsonl"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let project = Project::new(&packets, port);
    let remotes = format!("cluster.remoter_paths=[{REMOTES:?}]");
    let config = project.config(&[], &["--id", ID, "--dialect", "pinus", "--set", &remotes]);
    assert_eq!(config.dialect, Dialect::Pinus);
    let main = main_of(&project);
    joins(&packets, &listener, config, |info| {
        info["main"] = main.as_str().into();
        let info = info.as_object_mut().expect("an entry");
        assert!(info.shift_remove("handlerPaths").is_some());
        let paths = info["remoterPaths"].as_array_mut().expect("a list");
        paths.retain(|path| path["namespace"] == "user");
        assert_eq!(paths[0]["path"], REMOTES);
    });
}
