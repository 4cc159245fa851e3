//! A receiver of webhooks.

use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A platform that takes events, or says whatever `says` tells it to.
pub struct Receiver {
    pub url: String,
    got: Arc<Mutex<Vec<Got>>>,
    says: Arc<Mutex<Says>>,
    hangs: Arc<Mutex<Option<Arc<Hangs>>>>,
}

/// What hangs until it is released; other connections go on meanwhile.
pub struct Hangs {
    id: &'static str,
    pub is_there: AtomicUsize,
    released: Mutex<std::sync::mpsc::Receiver<()>>,
}

pub type Says = Box<dyn FnMut(&Got) -> &'static str + Send>;

#[derive(Clone, Debug)]
pub struct Got {
    /// `POST`, or `OPTIONS`, which has no body.
    pub method: String,
    pub headers: HashMap<String, String>,
    pub body: Value,
    /// As it came.
    pub raw: Vec<u8>,
}

impl Got {
    pub fn id(&self) -> String {
        self.body["id"].as_str().unwrap_or_default().to_owned()
    }
}

pub const OK: &str = "204 No Content";
/// And when to ask again, so that nobody waits for a pause that has grown.
pub const UNABLE: &str = "503 Service Unavailable\r\nretry-after: 1";

impl Receiver {
    pub fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("its address"));
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let says: Arc<Mutex<Says>> = Arc::new(Mutex::new(Box::new(|_| OK)));
        let (kept, answers) = (got.clone(), says.clone());
        let hangs: Arc<Mutex<Option<Arc<Hangs>>>> = Arc::default();
        let waits = hangs.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, answers, waits) = (kept.clone(), answers.clone(), waits.clone());
                std::thread::spawn(move || Receiver::talk(stream, &kept, &answers, &waits));
            }
        });
        Receiver { url, got, says, hangs }
    }

    /// Ends with the connection.
    fn talk(
        stream: TcpStream,
        kept: &Mutex<Vec<Got>>,
        answers: &Mutex<Says>,
        hangs: &Mutex<Option<Arc<Hangs>>>,
    ) -> Option<()> {
        let mut writer = stream.try_clone().ok()?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut headers = HashMap::new();
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
            let method = line.split(' ').next().unwrap_or_default().to_owned();
            assert!(line.contains(" /hook ") && ["POST", "OPTIONS"].contains(&method.as_str()), "{line}");
            loop {
                line.clear();
                reader.read_line(&mut line).ok()?;
                let Some((name, value)) = line.trim().split_once(':') else { break };
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
            let length = headers.get("content-length").map_or(Some(0), |n| n.parse().ok())?;
            let mut raw = vec![0; length];
            reader.read_exact(&mut raw).ok()?;
            let body = if method == "POST" { serde_json::from_slice(&raw).expect("JSON") } else { Value::Null };
            let got = Got { method, headers, body, raw };
            let hang = hangs.lock().expect("no panic").clone().filter(|hang| got.id() == hang.id);
            if let Some(hang) = hang {
                hang.is_there.fetch_add(1, Ordering::SeqCst);
                let _ = hang.released.lock().expect("no panic").recv_timeout(Duration::from_secs(60));
            }
            let answer = answers.lock().expect("no panic")(&got);
            if answer.starts_with('2') {
                kept.lock().expect("no panic").push(got);
            }
            // In one piece: three would wait for each other's acknowledgement.
            writer.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes()).ok()?;
        }
    }

    pub fn ids(&self) -> Vec<String> {
        self.got.lock().expect("no panic").iter().map(Got::id).collect()
    }

    pub fn all(&self) -> Vec<Got> {
        self.got.lock().expect("no panic").clone()
    }

    /// Hangs on the event with this id until it is released, or that was dropped.
    pub fn hang(&self, id: &'static str) -> (Arc<Hangs>, std::sync::mpsc::Sender<()>) {
        let (release, released) = std::sync::mpsc::channel();
        let hangs = Arc::new(Hangs { id, is_there: AtomicUsize::new(0), released: Mutex::new(released) });
        *self.hangs.lock().expect("no panic") = Some(hangs.clone());
        (hangs, release)
    }

    pub fn answer(&self, says: impl FnMut(&Got) -> &'static str + Send + 'static) {
        *self.says.lock().expect("no panic") = Box::new(says);
    }
}
