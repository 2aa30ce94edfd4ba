//! A headless Chromium, with its DevTools protocol.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

use crate::harness::client::HANG_GUARD;
use crate::harness::debian;
use crate::harness::peers::wait_for;
use crate::harness::process::Process;

/// A browser with a profile of its own. Dropping it ends the browser and removes the profile.
pub(crate) struct Browser {
    process: Process,
    _profile: TempDir,
    devtools: WebSocket<TcpStream>,
    last_id: u64,
    /// Events that no test has taken yet.
    events: VecDeque<Value>,
}

/// A page that is open.
pub(crate) struct Page {
    target: Value,
    /// The name of the page in calls and events.
    session: String,
}

impl Browser {
    /// Starts it. Where pages name one of the first addresses, it connects to the second one. Other machines do not
    /// exist for it.
    pub(crate) fn start(places: &[(&str, SocketAddr)]) -> Self {
        Self::start_with(places, &[])
    }

    /// The same with further options.
    pub(crate) fn start_with(places: &[(&str, SocketAddr)], options: &[&str]) -> Self {
        debian::need("chromium");
        let profile = tempfile::tempdir().expect("a temporary folder");
        let places = places
            .iter()
            .map(|(named, to)| format!("MAP {named} {to}, "));
        let rules: String = places.collect();
        let folder = profile.path().display();
        let args = [
            &format!("HOME={folder}"),
            &format!("TMPDIR={folder}"),
            "chromium",
            "--headless",
            // The tests may run as root.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            &format!("--host-resolver-rules={rules}MAP 127.0.0.1 127.0.0.1, MAP * ~NOTFOUND"),
            &format!("--user-data-dir={folder}"),
            "--remote-debugging-port=0",
        ];
        let args = [&args[..], options].concat();
        let mut process = Process::start("chromium", profile.path(), "env", &args);
        let devtools = wait_for("the DevTools of Chromium", || {
            let ended = process.has_exited();
            assert!(ended.is_none(), "{}", process.transcript());
            connect(profile.path())
        });
        Self {
            process,
            _profile: profile,
            devtools,
            last_id: 0,
            events: VecDeque::new(),
        }
    }

    /// Opens a page, and waits until it has loaded.
    pub(crate) fn open(&mut self, url: &str) -> Page {
        let target = self.call(None, "Target.createTarget", &json!({"url": "about:blank"}));
        let target = target["targetId"].clone();
        let attach = json!({"targetId": target, "flatten": true});
        let attached = self.call(None, "Target.attachToTarget", &attach);
        let session = attached["sessionId"].as_str().expect("an id").to_owned();
        let page = Page { target, session };
        for domain in ["Page", "Network"] {
            self.call(Some(&page), &format!("{domain}.enable"), &json!({}));
        }
        let enable = json!({"enabled": true});
        self.call(Some(&page), "Page.setLifecycleEventsEnabled", &enable);
        let navigated = self.call(Some(&page), "Page.navigate", &json!({"url": url}));
        let loader = &navigated["loaderId"];
        self.find("the load of the page", |message| {
            // The empty page before it has another loader.
            let params = &message["params"];
            params["name"] == "load" && params["loaderId"] == *loader
        });
        page
    }

    /// Runs a script in the page, and returns its value.
    pub(crate) fn run(&mut self, page: &Page, script: &str) -> Value {
        let evaluate = json!({"expression": script, "returnByValue": true});
        let done = self.call(Some(page), "Runtime.evaluate", &evaluate);
        assert!(done.get("exceptionDetails").is_none(), "{script}: {done}");
        done["result"]["value"].clone()
    }

    /// Clicks on an element.
    pub(crate) fn click(&mut self, page: &Page, element: &str) {
        self.run(
            page,
            &format!("document.getElementById('{element}').click()"),
        );
    }

    /// Puts a text into a field.
    pub(crate) fn fill(&mut self, page: &Page, field: &str, text: &str) {
        let text = json!(text);
        self.run(
            page,
            &format!("document.getElementById('{field}').value = {text}"),
        );
    }

    /// Waits until the page shows a text. Returns all that it shows.
    pub(crate) fn wait_for_text(&mut self, page: &Page, text: &str) -> String {
        wait_for(&format!("{text:?} in the page"), || {
            let shown = self.run(page, "document.body.innerText");
            let shown = shown.as_str().expect("a text");
            shown.contains(text).then(|| shown.to_owned())
        })
    }

    /// Waits until a WebSocket of the page has received such a frame.
    pub(crate) fn wait_for_frame(&mut self, page: &Page, is_it: impl Fn(&[u8]) -> bool) {
        self.find("a frame", |message| {
            let is_frame = message["method"] == "Network.webSocketFrameReceived";
            let text = message["params"]["response"]["payloadData"].as_str();
            is_frame && message["sessionId"] == page.session && {
                let text = text.expect("a frame has a payload");
                is_it(&BASE64_STANDARD.decode(text).expect("a binary frame"))
            }
        });
    }

    /// Closes it, as its user does.
    pub(crate) fn close(&mut self, page: Page) {
        self.call(
            None,
            "Target.closeTarget",
            &json!({"targetId": page.target}),
        );
    }

    /// Waits for a dialog of the page, closes it, and returns its text.
    pub(crate) fn dialog(&mut self, page: &Page) -> String {
        let dialog = self.event(page, "Page.javascriptDialogOpening");
        self.call(
            Some(page),
            "Page.handleJavaScriptDialog",
            &json!({"accept": true}),
        );
        dialog["message"].as_str().expect("a text").to_owned()
    }

    fn call(&mut self, page: Option<&Page>, method: &str, params: &Value) -> Value {
        self.last_id += 1;
        let mut call = json!({"id": self.last_id, "method": method, "params": params});
        if let Some(page) = page {
            call["sessionId"] = json!(page.session);
        }
        let sent = self.devtools.send(Message::text(call.to_string()));
        sent.unwrap_or_else(|e| panic!("{method}: {e}"));
        let id = json!(self.last_id);
        let answer = self.find(method, |message| message["id"] == id);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    fn event(&mut self, page: &Page, method: &str) -> Value {
        let event = self.find(method, |message| {
            message["method"] == method && message["sessionId"] == page.session
        });
        event["params"].clone()
    }

    /// Takes the first message of this kind, and keeps the others.
    fn find(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.events.iter().position(&is_it) {
            return self.events.remove(at).expect("found before");
        }
        let deadline = Instant::now() + HANG_GUARD;
        loop {
            let message = self.devtools.read();
            let message = message.unwrap_or_else(|e| panic!("waited for {what}: {e}"));
            let text = message.to_text().expect("the protocol is text");
            let message: Value = serde_json::from_str(text).expect("JSON");
            if is_it(&message) {
                return message;
            }
            self.events.push_back(message);
            assert!(Instant::now() < deadline, "no {what} within {HANG_GUARD:?}");
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // In order, because its child processes write into the profile for a while after a SIGKILL.
        let close = json!({"id": 0, "method": "Browser.close"}).to_string();
        if self.devtools.send(Message::text(close)).is_ok() {
            self.process.wait_exit(Duration::from_secs(10));
        }
    }
}

/// Connects to the port that a browser has put into its profile; `None` before that.
fn connect(profile: &Path) -> Option<WebSocket<TcpStream>> {
    let place = fs::read_to_string(profile.join("DevToolsActivePort")).ok()?;
    let (port, path) = place.split_once('\n')?;
    let stream = TcpStream::connect(format!("127.0.0.1:{port}")).ok()?;
    stream.set_read_timeout(Some(HANG_GUARD)).expect("not zero");
    let url = format!("ws://127.0.0.1:{port}{path}");
    Some(tungstenite::client(url, stream).ok()?.0)
}

/// Serves the files of a folder to browsers, as long as the test binary runs. Returns its address.
pub(crate) fn serve(folder: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            thread::spawn(move || answer(stream, &folder));
        }
    });
    address
}

/// Answers one request. A failure is the browser's to tell.
fn answer(stream: TcpStream, folder: &Path) -> Option<()> {
    let mut request = BufReader::new(&stream);
    let mut line = String::new();
    request.read_line(&mut line).ok()?;
    let mut header = String::new();
    while request.read_line(&mut header).ok()? > 2 {
        header.clear();
    }
    let path = line.split(' ').nth(1)?.trim_start_matches('/');
    let (status, body) = match fs::read(folder.join(path)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let kind = match path.rsplit_once('.')?.1 {
        "html" => "text/html",
        "js" => "text/javascript",
        "css" => "text/css",
        _ => "application/octet-stream",
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    (&stream).write_all(head.as_bytes()).ok()?;
    (&stream).write_all(&body).ok()
}
