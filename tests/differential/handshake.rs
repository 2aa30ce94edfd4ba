//! Dictionaries, protos and handshakes through tangelo and through genuine frontends of Pomelo.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tangelo::client::check::ClientCheck;
use tangelo::client::coder::Protos;
use tangelo::client::handshake::HandshakeReplies;
use tangelo::config::Config;
use tangelo::route::dictionary::Dictionary;
use tangelo::wire::package::{self, PackageKind};
use tangelo::wire::protobuf::{Flavour, Schema};

use super::peer::{self, hex};
use super::protobuf::Definitions;
use super::random::Random;

/// Frontends, each with a dictionary and protos of its own.
const FRONTENDS: usize = 180;
/// Handshakes that each of them gets.
const REQUESTS: usize = 14;

struct Case {
    line: Value,
    requests: Vec<Vec<u8>>,
    got: Vec<Vec<u8>>,
}

#[test]
fn a_handshake_gets_what_a_genuine_frontend_says() {
    let mut random = Random::from_seed("DIFFERENTIAL_SEED");
    let cases: Vec<Case> = (0..FRONTENDS).map(|_| case(&mut random)).collect();
    let lines: Vec<Value> = cases.iter().map(|case| case.line.clone()).collect();
    let (mut checked, mut taken) = (0, 0);
    for (case, answer) in cases
        .iter()
        .zip(peer::ask("handshake", "frontend.js", &[], &lines))
    {
        let replies = answer["replies"].as_array().unwrap();
        for ((request, got), expected) in case.requests.iter().zip(&case.got).zip(replies) {
            let expected = expected.as_array().unwrap();
            let text = |hex: &Value| {
                let bytes = unhex(hex.as_str().unwrap());
                String::from_utf8_lossy(&bytes[4..]).into_owned()
            };
            let shown = (
                String::from_utf8_lossy(request),
                expected.iter().map(text).collect::<Vec<_>>(),
                &case.line["options"],
                String::from_utf8_lossy(&got[4..]),
            );
            assert_eq!(*expected, [json!(hex(got))], "{shown:#?}");
            taken += usize::from(got.len() > 20);
            checked += 1;
        }
    }
    println!("{checked} handshakes, {taken} of them taken");
    assert!(checked >= 2_000 && taken > 1_000);
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.map(byte).collect()
}

fn case(random: &mut Random) -> Case {
    let handlers = random.handlers();
    let routes = handlers.iter().flat_map(|(of, handlers)| {
        let handlers = handlers.as_object().unwrap().iter();
        handlers.flat_map(move |(handler, methods)| {
            let methods = methods.as_array().unwrap().iter();
            methods.map(move |method| format!("{of}.{handler}.{}", method.as_str().unwrap()))
        })
    });
    let routes: Vec<String> = routes.collect();
    let user: Option<Vec<String>> = random.one_in(4).then_some(()).map_or_else(
        || {
            Some(
                (0..random.below(8))
                    .map(|_| random.user_route(&routes))
                    .collect(),
            )
        },
        |()| None,
    );
    let [server, client] = [(); 2].map(|()| (!random.one_in(4)).then(|| random.protos()));
    let mut config = Config::default();
    let options = &mut config.client;
    options.use_dict = !random.one_in(4);
    options.use_protobuf = !random.one_in(4);
    options.use_crypto = random.one_in(6);
    let heartbeat = *random.pick(&[0, 1, 3, 30]);
    options.heartbeat = (heartbeat > 0).then(|| std::time::Duration::from_secs(heartbeat));

    let schema = |protos: &Option<Value>| {
        let protos = protos.as_ref()?;
        Some(Schema::parse(Flavour::Pomelo, protos).unwrap_or_else(|e| panic!("{e}: {protos}")))
    };
    let protos = Arc::new(Protos::new(schema(&server), schema(&client)));
    let dictionary = Dictionary::new(
        routes.iter().map(String::as_str),
        user.iter().flatten().map(String::as_str),
    );
    let handshake = HandshakeReplies::new(&config, ClientCheck::default(), &dictionary, &protos);
    let versions = [dictionary.version(), protos.version().to_owned()];
    let bodies: Vec<Vec<u8>> = (0..REQUESTS).map(|_| random.request(&versions)).collect();
    let got = bodies.iter().map(|body| {
        let reply = match handshake.examine(body, |_| true) {
            Ok(greeting) => handshake.reply(&greeting.request).to_vec(),
            Err(refusal) => refusal.body.to_vec(),
        };
        packed(&reply)
    });
    let options = json!({
        "useDict": config.client.use_dict,
        "useProtobuf": config.client.use_protobuf,
        "useCrypto": config.client.use_crypto,
        "heartbeat": heartbeat,
    });
    let requests = bodies.iter().map(|body| hex(&packed(body)));
    Case {
        line: json!({
            "options": options,
            "handlers": handlers,
            "user": user,
            "protos": {"server": server, "client": client},
            "requests": requests.collect::<Vec<_>>(),
        }),
        got: got.collect(),
        requests: bodies,
    }
}

fn packed(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    package::write_head(&mut out, PackageKind::Handshake, body.len());
    out.extend_from_slice(body);
    out
}

const WORDS: [&str; 16] = [
    "enter", "a", "a1", "a10", "a2", "_x", "Zed", "chat", "Area", "é", "推送", "7", "10", "x y",
    "toString", "ﬀ",
];

impl Random {
    fn word(&mut self) -> &'static str {
        self.pick::<&str>(&WORDS)
    }

    /// Server types, their handlers, and the methods of those.
    fn handlers(&mut self) -> Map<String, Value> {
        let mut types = Map::new();
        for _ in 0..self.below(4) {
            let mut handlers = Map::new();
            for _ in 0..1 + self.below(3) {
                let mut methods: Vec<&str> = (0..self.below(6)).map(|_| self.word()).collect();
                methods.sort_unstable();
                methods.dedup();
                handlers.insert(self.word().to_owned(), json!(methods));
            }
            types.insert(self.word().to_owned(), handlers.into());
        }
        types
    }

    fn user_route(&mut self, handlers: &[String]) -> String {
        match self.below(5) {
            0 if !handlers.is_empty() => self.pick(handlers).clone(),
            1 => self.word().to_owned(),
            2 => format!("on\"{}\\{}\u{1}", self.word(), self.word()),
            3 => String::new(),
            _ => format!("on{}", self.word()),
        }
    }

    fn protos(&mut self) -> Value {
        let mut protos = Map::new();
        for _ in 0..self.below(4) {
            let definitions = Definitions::random(self, Flavour::Pomelo);
            for (name, shared) in &definitions.shared {
                protos.insert(format!("message {name}"), shared.json());
            }
            protos.insert(format!("on.{}", self.word()), definitions.route.json());
        }
        Value::Object(protos)
    }

    /// The body of a handshake: one that clients send, or one that no client sends.
    fn request(&mut self, versions: &[String; 2]) -> Vec<u8> {
        let sys = self.sys(versions);
        let mut text = match self.below(8) {
            0 => format!(" {{ \"user\" : {{\"sys\":0}},\n\"sys\":{sys} }} "),
            1 => format!("{{\"sys\":{},\"sys\":{sys}}}", self.odd()),
            2 => format!("{{\"\\u0073ys\":{sys}}}"),
            3 => format!("{{\"Sys\":{sys}}}"),
            _ => format!("{{\"sys\":{sys},\"user\":{{}}}}"),
        };
        if self.one_in(12) {
            text = self.odd().to_owned();
        }
        let mut bytes = text.into_bytes();
        match self.below(16) {
            0 => bytes.truncate(self.below(bytes.len() + 1)),
            1 => bytes.insert(self.below(bytes.len() + 1), 0xff),
            2 => bytes.splice(0..0, *b"\xef\xbb\xbf").for_each(drop),
            3 => bytes.push(b'}'),
            _ => {}
        }
        bytes
    }

    fn sys(&mut self, versions: &[String; 2]) -> String {
        if self.one_in(10) {
            return self.odd().to_owned();
        }
        let mut members = Vec::new();
        for (name, version) in ["dictVersion", "protoVersion"].into_iter().zip(versions) {
            let value = match self.below(6) {
                0 => continue,
                1 => self.odd().to_owned(),
                2 => format!("\"{version} \""),
                3 => json!(version.to_lowercase()).to_string(),
                _ => json!(version).to_string().replace('/', "\\/"),
            };
            members.push(format!("\"{name}\":{value}"));
        }
        if !self.one_in(4) {
            let rsa = [
                "{}",
                "{\"rsa_n\":\"c3f1\",\"rsa_e\":65537}",
                "null",
                "5",
                "\"\"",
            ];
            members.push(format!("\"rsa\":{}", self.pick(&rsa)));
        }
        if self.one_in(2) {
            members.push("\"type\":\"js-websocket\",\"version\":\"0.0.1\"".to_owned());
        }
        let at = self.below(members.len() + 1);
        members.rotate_left(at);
        format!("{{{}}}", members.join(","))
    }

    fn odd(&mut self) -> &'static str {
        const ODD: [&str; 14] = [
            "null",
            "true",
            "false",
            "0",
            "-0",
            "1e-400",
            "5",
            "\"\"",
            "\"x\"",
            "[]",
            "[0]",
            "{}",
            "{\"sys\":{}}",
            "1.0",
        ];
        self.pick::<&str>(&ODD)
    }
}
