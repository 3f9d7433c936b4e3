//! Signs licences, for a distributor of hot-backup: `cargo run --release --example sign-licence -- COMMAND`.
//!
//! - `key FILE` makes a key in a new file, and prints the public key for the nodes' config (`licence_key`).
//! - `public FILE` prints it again.
//! - `sign --key FILE --customer NAME --node LINE --node LINE [--issued DAY] --expires DAY` prints a licence. A LINE is
//!   what `hot-backup identity` prints on a node, or a fingerprint; without `--issued` it is issued today.
//!
//! The file holds the secret key: keep it from everybody.

use clap::Parser;
use hot_backup::format::licence::{Day, Licence, SignedLicence, is_customer, key_bytes};
use hot_backup::node::identity::Identity;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Parser)]
#[command(name = "sign-licence", about = "Signs licences, for a distributor of hot-backup")]
enum Command {
    /// Makes a key in a new file, and prints the public key
    Key {
        /// The file
        file: PathBuf,
    },
    /// Prints the public key
    Public {
        /// The file
        file: PathBuf,
    },
    /// Prints a licence
    Sign(Sign),
}

#[derive(clap::Args)]
struct Sign {
    /// The file with the key
    #[arg(long)]
    key: PathBuf,
    /// To whom: printable ASCII
    #[arg(long)]
    customer: String,
    /// What `hot-backup identity` prints on a node, or a fingerprint; twice
    #[arg(long, required = true)]
    node: Vec<String>,
    /// The day of issue, as 2026-11-30
    #[arg(long)]
    issued: Option<String>,
    /// The last day on which it holds
    #[arg(long)]
    expires: String,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn load(file: &Path) -> Outcome<Ed25519KeyPair> {
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("reading {}: {error}", file.display()))?;
    let seed = key_bytes(text.trim()).ok_or("the file holds no key")?;
    Ok(Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| "the key cannot be used")?)
}

fn make(file: &Path) -> Outcome<()> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| "the system gives no random bytes")?;
    let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    made.write_all(format!("{}\n", hex(&seed)).as_bytes())?;
    made.sync_all()?;
    Ok(())
}

fn day(text: &str) -> Outcome<Day> {
    Ok(Day::parse(text).ok_or_else(|| format!("{text:?} is no day as 2026-11-30"))?)
}

fn node(text: &str) -> Outcome<[u8; 32]> {
    match key_bytes(text) {
        Some(fingerprint) => Ok(fingerprint),
        None => Ok(text.parse::<Identity>()?.fingerprint.0),
    }
}

fn sign(args: &Sign) -> Outcome<SignedLicence> {
    let [a, b] = args.node.as_slice() else { return Err("a licence names two nodes".into()) };
    let wall = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() * 1000;
    let issued = args.issued.as_deref().map_or(Ok(Day::of_wall(wall)), day)?;
    let (customer, nodes, expires) = (args.customer.clone(), [node(a)?, node(b)?], day(&args.expires)?);
    if !is_customer(&customer) {
        return Err("a customer has 1 to 60 printable ASCII characters, and one blank between words".into());
    }
    let licence = Licence { customer, nodes, issued, expires };
    let signature = load(&args.key)?.sign(licence.signed_text().as_bytes()).as_ref().try_into()?;
    let signed = SignedLicence { licence, signature };
    // What a node would refuse is not given out.
    Ok(SignedLicence::parse(&signed.to_string())?)
}

fn main() -> Outcome<()> {
    match Command::parse() {
        Command::Key { file } => {
            make(&file).map_err(|error| format!("making a key in {}: {error}", file.display()))?;
            println!("{}", hex(load(&file)?.public_key().as_ref()));
        }
        Command::Public { file } => println!("{}", hex(load(&file)?.public_key().as_ref())),
        Command::Sign(args) => print!("{}", sign(&args)?),
    }
    Ok(())
}
