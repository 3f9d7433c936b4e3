//! A client of etcd, version 3, over its JSON gateway: as much of it as a lease needs.
//!
//! Each call goes to the member that answered last; if that does not answer in time, to the next one. Every call may be
//! carried out although its answer was lost, so whoever calls reads what is there before it goes on.

use crate::base::limits::{ETCD_ANSWER_MAX, ETCD_CONNECT_MS};
use crate::node::config::Secret;
use crate::node::notify::{certificates, secret};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

/// The status of gRPC for a member that has no leader, or is not there.
const UNAVAILABLE: u64 = 14;

/// Where etcd is, and who asks.
#[derive(Clone, Debug, Default)]
pub struct EtcdPlace {
    /// Its members: `https://host:2379`.
    pub urls: Vec<String>,
    /// The certificates that sign those of its members; without it the public ones.
    pub ca: Option<PathBuf>,
    /// The certificate and the key of the client.
    pub cert: Option<(PathBuf, PathBuf)>,
    /// The user, and the file with its password.
    pub user: Option<(String, PathBuf)>,
}

/// Why etcd did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// No member could be asked, or none has a leader. It may have been done.
    #[error("asking etcd: {0}")]
    Unreached(String),
    /// It said no.
    #[error("etcd refuses: {0}")]
    Refused(String),
    /// A file of the settings is of no use.
    #[error("{0}")]
    Settings(String),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its value.
    pub(super) value: Vec<u8>,
    /// The revision that changed it last.
    pub(super) revision: u64,
    /// The lease to which it is bound; 0: none.
    pub(super) lease: u64,
}

/// The client.
pub(super) struct Etcd {
    agent: Agent,
    patient: Agent,
    urls: Vec<String>,
    /// The member that is asked first.
    at: usize,
    user: Option<(String, Secret)>,
    token: Option<String>,
}

fn agent(place: &EtcdPlace, patience: Option<Duration>) -> Result<Agent, EtcdError> {
    let here = Path::new("");
    let read = |file: &Path| {
        let found = certificates(here, file).map_err(EtcdError::Settings)?;
        Ok::<Vec<_>, EtcdError>(found.iter().map(|der| Certificate::from_der(der).to_owned()).collect())
    };
    let roots = match &place.ca {
        None => RootCerts::WebPki,
        Some(file) => RootCerts::new_with_certs(&read(file)?),
    };
    let client = match &place.cert {
        None => None,
        Some((cert, key)) => Some(ClientCert::new_with_certs(&read(cert)?, private_key(key)?)),
    };
    let config = Agent::config_builder()
        .timeout_connect(Some(Duration::from_millis(ETCD_CONNECT_MS)))
        .timeout_global(patience)
        .max_redirects(0)
        .http_status_as_error(false)
        .proxy(None)
        .user_agent(concat!("hot-backup/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(roots).client_cert(client).build());
    Ok(config.build().into())
}

fn private_key(file: &Path) -> Result<PrivateKey<'static>, EtcdError> {
    let text = crate::io::read_trusted(
        file,
        crate::io::Demand { most: crate::base::limits::CONFIG_FILE_MAX, secret: true, linked: true },
    );
    let failed = |why: &dyn std::fmt::Display| {
        EtcdError::Settings(format!("reading the key in {}: {why}", file.display()))
    };
    let text = text.map_err(|why| failed(&why))?;
    PrivateKey::from_pem(&text).map_err(|why| failed(&why))
}

/// A number as the gateway writes it: in quotes.
fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).or_else(|| value.as_u64()).unwrap_or_default()
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

fn decoded(value: &Value) -> Vec<u8> {
    value.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok()).unwrap_or_default()
}

fn entry(found: &Value) -> Entry {
    Entry {
        value: decoded(&found["value"]),
        revision: number(&found["mod_revision"]),
        lease: number(&found["lease"]),
    }
}

/// What a transaction found by its read of this number.
pub(super) fn found(answer: &Value, at: usize) -> Option<Entry> {
    answer["responses"][at]["response_range"]["kvs"].get(0).map(entry)
}

/// What a transaction asks for before it writes.
pub(super) enum Unless<'a> {
    /// The key is not there.
    Exists(&'a str),
    /// It was changed last in this revision; 0: it is not there.
    Changed(&'a str, u64),
    /// It is bound to this lease.
    Leased(&'a str, u64),
}

impl Unless<'_> {
    fn compare(&self) -> Value {
        match self {
            Self::Exists(key) => {
                json!({ "key": encoded(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0" })
            }
            Self::Changed(key, revision) => {
                json!({ "key": encoded(key), "target": "MOD", "result": "EQUAL", "mod_revision": revision.to_string() })
            }
            Self::Leased(key, lease) => {
                json!({ "key": encoded(key), "target": "LEASE", "result": "EQUAL", "lease": lease.to_string() })
            }
        }
    }
}

impl Etcd {
    /// A client; `patience` bounds each call to one member.
    ///
    /// # Errors
    /// [`EtcdError::Settings`].
    pub(super) fn new(place: &EtcdPlace, patience: Duration) -> Result<Self, EtcdError> {
        let user = match &place.user {
            None => None,
            Some((name, file)) => {
                Some((name.clone(), secret(Path::new(""), file).map_err(EtcdError::Settings)?))
            }
        };
        let urls = place.urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        let (agent, patient) = (agent(place, Some(patience))?, agent(place, None)?);
        Ok(Self { agent, patient, urls, at: 0, user, token: None })
    }

    /// Asks one member.
    fn ask(
        &self,
        agent: &Agent,
        path: &str,
        body: &Value,
    ) -> Result<ureq::http::Response<ureq::Body>, String> {
        let url = format!("{}{path}", self.urls[self.at]);
        let mut request = agent.post(&url).header("Content-Type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("Authorization", token);
        }
        request.send(body.to_string()).map_err(|error| format!("{}: {error}", self.urls[self.at]))
    }

    /// Asks the members in turn until one answers.
    fn call(&mut self, path: &str, body: &Value) -> Result<Value, EtcdError> {
        let mut why = String::new();
        for _ in 0..self.urls.len() {
            match self.ask_as_user(path, body) {
                Err(EtcdError::Unreached(text)) => why = text,
                done => return done,
            }
            self.at = (self.at + 1) % self.urls.len();
        }
        Err(EtcdError::Unreached(why))
    }

    /// Asks one member; a token that is not there or has run out is fetched.
    fn ask_as_user(&mut self, path: &str, body: &Value) -> Result<Value, EtcdError> {
        for again in [true, false] {
            if self.token.is_none()
                && let Some((name, password)) = &self.user
            {
                let body = json!({ "name": name, "password": password.0 });
                let answer = self.answer(self.ask(&self.agent, "/v3/auth/authenticate", &body))?;
                self.token = answer["token"].as_str().map(str::to_owned);
            }
            match self.answer(self.ask(&self.agent, path, body)) {
                Err(EtcdError::Refused(why))
                    if again && why.contains("auth token") && self.user.is_some() =>
                {
                    self.token = None;
                }
                done => return done,
            }
        }
        Err(EtcdError::Refused("its tokens are of no use".to_owned()))
    }

    fn answer(&self, sent: Result<ureq::http::Response<ureq::Body>, String>) -> Result<Value, EtcdError> {
        let mut response = sent.map_err(EtcdError::Unreached)?;
        let status = response.status();
        let text = response
            .body_mut()
            .with_config()
            .limit(ETCD_ANSWER_MAX)
            .read_to_string()
            .map_err(|error| EtcdError::Unreached(format!("{}: {error}", self.urls[self.at])))?;
        // A call that is a stream has its one answer on the first line.
        let line = text.lines().next().unwrap_or_default();
        let value: Value = serde_json::from_str(line)
            .map_err(|_| EtcdError::Unreached(format!("{}: {status}, no JSON", self.urls[self.at])))?;
        let error = if value["error"].is_object() { &value["error"] } else { &value };
        let why = error["message"].as_str().or_else(|| error["error"].as_str());
        if let Some(why) = why.filter(|_| !status.is_success() || value["error"].is_object()) {
            let why = why.chars().take(200).collect::<String>();
            let code = error["code"].as_u64().or_else(|| error["grpc_code"].as_u64());
            return Err(match code {
                Some(UNAVAILABLE) => EtcdError::Unreached(format!("{}: {why}", self.urls[self.at])),
                _ if status.is_server_error() && !why.contains("lease not found") => {
                    EtcdError::Unreached(format!("{}: {why}", self.urls[self.at]))
                }
                _ => EtcdError::Refused(why),
            });
        }
        if !status.is_success() {
            return Err(EtcdError::Unreached(format!("{}: {status}", self.urls[self.at])));
        }
        Ok(value)
    }

    /// A new lease for `seconds`: its number.
    ///
    /// # Errors
    /// [`EtcdError`]
    pub(super) fn grant(&mut self, seconds: u64) -> Result<u64, EtcdError> {
        let answer = self.call("/v3/lease/grant", &json!({ "TTL": seconds.to_string(), "ID": "0" }))?;
        match number(&answer["ID"]) {
            0 => Err(EtcdError::Refused("it gave a lease without a number".to_owned())),
            lease => Ok(lease),
        }
    }

    /// Renews a lease: for how long it lasts from now on (seconds); none if it is over.
    ///
    /// # Errors
    /// [`EtcdError`]
    pub(super) fn keep_alive(&mut self, lease: u64) -> Result<Option<u64>, EtcdError> {
        let answer = self.call("/v3/lease/keepalive", &json!({ "ID": lease.to_string() }))?;
        Ok(Some(number(&answer["result"]["TTL"])).filter(|ttl| *ttl > 0))
    }

    /// Gives a lease back, with all that is bound to it.
    ///
    /// # Errors
    /// [`EtcdError`]; one that is over is none.
    pub(super) fn revoke(&mut self, lease: u64) -> Result<(), EtcdError> {
        match self.call("/v3/lease/revoke", &json!({ "ID": lease.to_string() })) {
            Err(EtcdError::Refused(why)) if why.contains("not found") => Ok(()),
            done => done.map(drop),
        }
    }

    /// What two keys hold at one moment.
    ///
    /// # Errors
    /// [`EtcdError`]
    pub(super) fn both(&mut self, keys: [&str; 2]) -> Result<[Option<Entry>; 2], EtcdError> {
        let range = |key: &str| json!({ "request_range": { "key": encoded(key) } });
        let body = json!({ "success": [range(keys[0]), range(keys[1])] });
        let answer = self.call("/v3/kv/txn", &body)?;
        Ok([found(&answer, 0), found(&answer, 1)])
    }

    /// Writes keys, each bound to a lease or to none, unless something has changed. Returns whether it did.
    ///
    /// # Errors
    /// [`EtcdError`]; then it may have been done.
    pub(super) fn put(
        &mut self,
        puts: &[(&str, &[u8], u64)],
        unless: &[Unless<'_>],
    ) -> Result<bool, EtcdError> {
        let compare: Vec<Value> = unless.iter().map(Unless::compare).collect();
        let success: Vec<Value> = puts
            .iter()
            .map(|(key, value, lease)| {
                let put = json!({ "key": encoded(key), "value": encoded(value), "lease": lease.to_string() });
                json!({ "request_put": put })
            })
            .collect();
        let answer = self.call("/v3/kv/txn", &json!({ "compare": compare, "success": success }))?;
        Ok(answer["succeeded"].as_bool().unwrap_or_default())
    }

    /// Calls `told` whenever a key changes, until the connection ends, or `told` says no.
    ///
    /// # Errors
    /// [`EtcdError`]
    pub(super) fn follow(&mut self, key: &str, told: impl Fn() -> bool) -> Result<(), EtcdError> {
        // A token is fetched as for any other call.
        self.both([key, key])?;
        let body = json!({ "create_request": { "key": encoded(key) } });
        let response = self.ask(&self.patient, "/v3/watch", &body).map_err(EtcdError::Unreached)?;
        let mut lines = BufReader::new(response.into_body().into_reader());
        loop {
            let mut line = Vec::new();
            let read = (&mut lines).take(ETCD_ANSWER_MAX).read_until(b'\n', &mut line);
            match read {
                Ok(0) => return Err(EtcdError::Unreached("the watch has ended".to_owned())),
                Ok(_) if told() => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(EtcdError::Unreached(error.to_string())),
            }
        }
    }

    /// Asks the next member from now on.
    pub(super) fn turn(&mut self) {
        self.at = (self.at + 1) % self.urls.len();
    }
}
