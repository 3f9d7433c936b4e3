//! Receivers of messages that the tests start themselves: of HTTP, of mail, of datagrams.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a receiver was sent, oldest first.
#[derive(Clone, Default)]
pub(crate) struct Received(Arc<Mutex<Vec<String>>>);

impl Received {
    fn push(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    /// The lines of a stream, as they come.
    pub(crate) fn lines(stream: impl Read + Send + 'static) -> Self {
        let received = Self::default();
        let keep = received.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                keep.push(line);
            }
        });
        received
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Those that hold a text.
    pub(crate) fn with(&self, part: &str) -> Vec<String> {
        self.all().into_iter().filter(|text| text.contains(part)).collect()
    }

    /// Waits for one that holds a text.
    #[track_caller]
    pub(crate) fn has(&self, part: &str) -> String {
        super::wait_until(&format!("a message with {part:?}"), || self.with(part).into_iter().next())
    }
}

/// A key and a certificate for loopback, and the latter as a file.
pub(crate) struct Tls {
    config: Arc<rustls::ServerConfig>,
    pub(crate) file: PathBuf,
}

impl Tls {
    pub(crate) fn new(dir: &Path) -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let file = dir.join("receiver-ca.pem");
        std::fs::write(&file, cert.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        Self { config: Arc::new(config), file }
    }

    fn accept(config: &Arc<rustls::ServerConfig>, stream: TcpStream) -> Stream {
        let session = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
        Stream::Tls(Box::new(rustls::StreamOwned::new(session, stream)))
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ServerConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// Serves each caller by a thread of its own; the test program's end is theirs.
fn serve(listener: TcpListener, each: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    let each = Arc::new(each);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
            let each = Arc::clone(&each);
            std::thread::spawn(move || each(stream));
        }
    });
    address
}

/// A listener that a test may make before anybody knows its address.
pub(crate) fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// Takes requests: each is kept as its head and its body.
pub(crate) fn http(listener: TcpListener, tls: Option<&Tls>) -> (SocketAddr, Received) {
    let received = Received::default();
    let (keep, tls) = (received.clone(), tls.map(|tls| Arc::clone(&tls.config)));
    let address = serve(listener, move |stream| {
        let stream = match &tls {
            Some(config) => Tls::accept(config, stream),
            None => Stream::Plain(stream),
        };
        let _ = take_request(stream, &keep);
    });
    (address, received)
}

fn take_request(stream: Stream, keep: &Received) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(number) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = number.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    if head.is_empty() {
        return Ok(());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    keep.push(format!("{head}\n{}", String::from_utf8_lossy(&body)));
    let stream = reader.get_mut();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\ntaken")?;
    stream.flush()
}

/// Takes mails, after STARTTLS and a login if there is a key: each is kept as what was said and its content.
pub(crate) fn smtp(listener: TcpListener, tls: Option<&Tls>) -> (SocketAddr, Received) {
    let received = Received::default();
    let (keep, tls) = (received.clone(), tls.map(|tls| Arc::clone(&tls.config)));
    let address = serve(listener, move |mut stream| {
        if stream.write_all(b"220 receiver\r\n").is_ok() {
            let _ = take_mail(Stream::Plain(stream), tls.as_ref(), &keep);
        }
    });
    (address, received)
}

fn take_mail(
    stream: Stream,
    tls: Option<&Arc<rustls::ServerConfig>>,
    keep: &Received,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut said, mut secured) = (String::new(), false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        said.push_str(&line);
        let word = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let answer = match word.as_str() {
            "EHLO" if secured => "250-receiver\r\n250 AUTH PLAIN\r\n",
            "EHLO" if tls.is_some() => "250-receiver\r\n250 STARTTLS\r\n",
            "STAR" => {
                reader.get_mut().write_all(b"220 go\r\n")?;
                let Stream::Plain(stream) = reader.into_inner() else { return Ok(()) };
                reader = BufReader::new(Tls::accept(tls.unwrap(), stream));
                secured = true;
                continue;
            }
            "MAIL" if tls.is_some() && !said.contains("AUTH PLAIN") => "530 log in first\r\n",
            "AUTH" => "235 welcome\r\n",
            "DATA" => {
                reader.get_mut().write_all(b"354 go on\r\n")?;
                reader.get_mut().flush()?;
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line)? == 0 || line == ".\r\n" {
                        break;
                    }
                    said.push_str(&line);
                }
                keep.push(std::mem::take(&mut said));
                "250 queued as 42\r\n"
            }
            "QUIT" => "221 bye\r\n",
            _ => "250 ok\r\n",
        };
        reader.get_mut().write_all(answer.as_bytes())?;
        reader.get_mut().flush()?;
    }
}

/// Takes datagrams at `path`.
pub(crate) fn datagrams(path: &Path) -> Received {
    let socket = UnixDatagram::bind(path).unwrap();
    let received = Received::default();
    let keep = received.clone();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok(len) = socket.recv(&mut buffer) {
            keep.push(String::from_utf8_lossy(&buffer[..len]).into_owned());
        }
    });
    received
}
