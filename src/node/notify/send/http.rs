//! Webhooks, an Alertmanager, and signs of life.

use super::{Message, rfc3339};
use crate::base::limits::{CONFIG_FILE_MAX, NOTIFY_ANSWER_MAX, NOTIFY_PATIENCE_MS};
use crate::io::{Demand, read_trusted};
use crate::node::notify::target::{Http, secret};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Sends a message as JSON.
pub(super) fn webhook(dir: &Path, http: &Http, message: &Message) -> Result<String, String> {
    post(dir, http, &http.url, &message.json())
}

/// Tells an Alertmanager what lasts, and what has ended.
pub(super) fn alert(dir: &Path, http: &Http, messages: &[Message]) -> Result<String, String> {
    let alerts: Vec<Value> = messages.iter().map(as_alert).collect();
    let url = format!("{}/api/v2/alerts", http.url.trim_end_matches('/'));
    post(dir, http, &url, &Value::Array(alerts))
}

/// A record as API v2 has it. What lasts has no end, and is told again while it does.
fn as_alert(message: &Message) -> Value {
    let record = &message.record;
    let mut alert = json!({
        "labels": {
            "alertname": format!("hot-backup {}", record.code),
            "severity": record.severity,
            "code": record.code,
            "node": message.node,
            "incident": record.id.to_string(),
        },
        "annotations": { "summary": record.what, "description": record.text(), "advice": record.next, "end": record.end },
        "startsAt": rfc3339(record.since_ms),
    });
    let ends = record.ended_ms.filter(|_| !record.end.is_empty());
    if let (Some(ended), Some(alert)) = (ends, alert.as_object_mut()) {
        alert.insert("endsAt".to_owned(), json!(rfc3339(ended.max(record.since_ms + 1000))));
    }
    alert
}

/// Sends a sign of life.
pub(in crate::node::notify) fn ping(dir: &Path, http: &Http) -> Result<String, String> {
    let mut request = agent(dir, http)?.get(&http.url);
    if let Some(token) = token(dir, http)? {
        request = request.header("Authorization", token);
    }
    answer(request.call())
}

fn post(dir: &Path, http: &Http, url: &str, value: &Value) -> Result<String, String> {
    let mut request = agent(dir, http)?.post(url).header("Content-Type", "application/json");
    if let Some(token) = token(dir, http)? {
        request = request.header("Authorization", token);
    }
    answer(request.send(value.to_string()))
}

fn token(dir: &Path, http: &Http) -> Result<Option<String>, String> {
    let Some(file) = &http.token_file else { return Ok(None) };
    Ok(Some(format!("Bearer {}", secret(dir, file)?.0)))
}

/// Redirects are not followed: what is said goes to who was named.
fn agent(dir: &Path, http: &Http) -> Result<Agent, String> {
    let roots = match &http.ca_file {
        None => RootCerts::WebPki,
        Some(file) => {
            let certificates = certificates(dir, file)?;
            let certificates: Vec<_> =
                certificates.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
            RootCerts::new_with_certs(&certificates)
        }
    };
    let config = Agent::config_builder()
        .timeout_global(Some(Duration::from_millis(NOTIFY_PATIENCE_MS)))
        .max_redirects(0)
        .http_status_as_error(false)
        .proxy(None)
        .user_agent(concat!("hot-backup/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(roots).build());
    Ok(config.build().into())
}

/// The certificates of a PEM file.
pub(in crate::node) fn certificates(dir: &Path, file: &Path) -> Result<Vec<Vec<u8>>, String> {
    let path = dir.join(file);
    let demand = Demand { most: CONFIG_FILE_MAX, secret: false, linked: true };
    let failed =
        |why: &dyn std::fmt::Display| format!("reading the certificates in {}: {why}", path.display());
    let bytes = read_trusted(&path, demand).map_err(|why| failed(&why))?;
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(&bytes).map(|der| der.map(|der| der.to_vec())).collect();
    match found {
        Ok(found) if found.is_empty() => Err(failed(&"there is none")),
        Ok(found) => Ok(found),
        Err(why) => Err(failed(&why)),
    }
}

fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<String, String> {
    let mut response = result.map_err(|error| error.to_string())?;
    let status = response.status();
    // What is behind the limit is not read; a receiver that took the message may say what it likes.
    let said =
        response.body_mut().with_config().limit(NOTIFY_ANSWER_MAX).read_to_string().unwrap_or_default();
    let said: String = said.trim().chars().take(200).collect();
    let text = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
    if status.is_success() { Ok(text) } else { Err(text) }
}
