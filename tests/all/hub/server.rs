//! A server that imitates the hub.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The commit that the branch `main` names at first.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A repository `someone/model` on this machine, served as the hub serves it.
#[derive(Default)]
pub struct Repository {
    pub commit: String,
    pub files: BTreeMap<String, Vec<u8>>,
    /// Requests without this token get status 401.
    pub token: Option<String>,
    /// Downloads break off after the first number of bytes, as many times as the second number
    /// says.
    pub breaks: (usize, usize),
    /// Files are sent whole, whatever range is requested.
    pub ignores_ranges: bool,
    /// The downloads so far: path and first byte.
    pub requests: Vec<(String, usize)>,
}

pub struct Server {
    pub address: String,
    pub repository: Arc<Mutex<Repository>>,
}

impl Server {
    pub fn start(files: &[(&str, Vec<u8>)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
        let repository = Repository { commit: COMMIT.into(), files, ..Repository::default() };
        let repository = Arc::new(Mutex::new(repository));
        let shared = repository.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let repository = shared.clone();
                std::thread::spawn(move || answer(stream.unwrap(), &repository));
            }
        });
        Self { address, repository }
    }

    /// First bytes of the downloads of `name`.
    pub fn downloads(&self, name: &str) -> Vec<usize> {
        let repository = self.repository.lock().unwrap();
        let of_file = repository.requests.iter().filter(|(path, _)| path.ends_with(name));
        of_file.map(|(_, start)| *start).collect()
    }
}

/// Answers one request and closes the connection.
fn answer(mut stream: TcpStream, repository: &Mutex<Repository>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        let values = headers.iter().filter_map(|line| line.split_once(": "));
        values.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    };
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut repository = repository.lock().unwrap();
    let mut reply = |status: &str, headers: &str, body: &[u8], length: usize| {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    };
    if repository.token.is_some() && header("authorization") != repository.token.as_ref().map(|t| format!("Bearer {t}"))
    {
        return reply("401 Unauthorized", "", b"", 0);
    }
    let commit = repository.commit.clone();
    if path == "/api/models/someone/model/revision/main" {
        let files: Vec<_> = repository.files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
        let body = serde_json::json!({"siblings": files, "sha": commit}).to_string();
        return reply("200 OK", "", body.as_bytes(), body.len());
    }
    let name = path.strip_prefix(&format!("/someone/model/resolve/{commit}/"));
    let Some(bytes) = name.and_then(|name| repository.files.get(name)).cloned() else {
        return reply("404 Not Found", "", b"", 0);
    };
    let range = header("range").unwrap_or_default();
    let (first, last) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).unwrap();
    let first: usize = first.parse().unwrap();
    let last = last.parse().map_or(bytes.len(), |last: usize| last + 1);
    if first >= bytes.len() {
        return reply("416 Range Not Satisfiable", "", b"", 0);
    }
    let headers = format!(
        "Content-Range: bytes {first}-{}/{}\r\nETag: \"{}\"\r\nX-Repo-Commit: {commit}\r\n",
        last - 1,
        bytes.len(),
        bytes.iter().fold(bytes.len() as u64, |hash, &byte| hash.wrapping_mul(31) ^ u64::from(byte)),
    );
    let mut sent = &bytes[first..last];
    if last == bytes.len() {
        repository.requests.push((path, first));
        if repository.ignores_ranges {
            return reply("200 OK", &headers, &bytes, bytes.len());
        }
        let (limit, times) = repository.breaks;
        if times > 0 && sent.len() > limit {
            repository.breaks.1 -= 1;
            sent = &sent[..limit];
        }
    }
    reply("206 Partial Content", &headers, sent, last - first);
}
