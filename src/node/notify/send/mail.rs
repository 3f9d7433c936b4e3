//! Mail by SMTP.

use super::Message;
use crate::base::limits::NOTIFY_PATIENCE_MS;
use crate::node::notify::target::{Mail, MailTls, secret};
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{SmtpTransport, Transport};
use std::path::Path;
use std::time::Duration;

/// Whether the addresses are some.
pub(in crate::node::notify) fn check(mail: &Mail) -> Result<(), String> {
    addresses(mail).map(drop)
}

fn addresses(mail: &Mail) -> Result<(Mailbox, Vec<Mailbox>), String> {
    let address = |text: &String| {
        text.parse::<Mailbox>()
            .map_err(|error| format!("\"{}\" is no mail address: {error}", text.escape_debug()))
    };
    Ok((address(&mail.from)?, mail.to.iter().map(address).collect::<Result<_, _>>()?))
}

/// Hands a message to the mail server, and gives what that said.
pub(super) fn send(dir: &Path, mail: &Mail, message: &Message) -> Result<String, String> {
    let (from, to) = addresses(mail)?;
    let builder = to.into_iter().fold(MessageBuilder::new().from(from), MessageBuilder::to);
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    let letter = builder
        .subject(message.subject())
        .header(ContentType::TEXT_PLAIN)
        .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
        .body(message.lines().get(1..).unwrap_or_default().join("\n"))
        .map_err(|error| format!("writing the mail: {error}"))?;
    let said = transport(dir, mail)?.send(&letter).map_err(|error| spelled(&error))?;
    Ok(said.message().collect::<Vec<_>>().join(" "))
}

fn transport(dir: &Path, mail: &Mail) -> Result<SmtpTransport, String> {
    let mut tls = TlsParameters::builder(mail.host.clone());
    if let Some(file) = &mail.ca_file {
        for certificate in super::http::certificates(dir, file)? {
            let certificate = Certificate::from_der(certificate).map_err(|error| spelled(&error))?;
            tls = tls.add_root_certificate(certificate);
        }
    }
    let tls = match mail.tls {
        MailTls::None => Tls::None,
        MailTls::Start => Tls::Required(tls.build_rustls().map_err(|error| spelled(&error))?),
        MailTls::Whole => Tls::Wrapper(tls.build_rustls().map_err(|error| spelled(&error))?),
    };
    let builder = SmtpTransport::builder_dangerous(&mail.host)
        .port(mail.port)
        .tls(tls)
        .timeout(Some(Duration::from_millis(NOTIFY_PATIENCE_MS)));
    let (Some(user), Some(file)) = (&mail.user, &mail.password_file) else { return Ok(builder.build()) };
    let password = secret(dir, file)?;
    Ok(builder.credentials(Credentials::new(user.clone(), password.0)).build())
}

/// An error with its causes, in a line.
fn spelled(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = next.source();
    }
    text
}
