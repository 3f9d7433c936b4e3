//! A small load client for what `redis-benchmark` cannot do: each of N connections sends one SET (with `--wait`, and a
//! WAIT for one replica right behind it, in the same packet), takes the answers, checks them, and sends the next.
//!
//! Usage: `bench-load --port P [--clients 64] [--seconds 5] [--value 128] [--keys 100000] [--wait]`. Prints one line of
//! JSON. One thread, epoll; it ends with an error at the first answer that is not the expected one.

use hot_backup::measure::load::{LoadPlan, run};
use std::error::Error;
use std::net::Ipv4Addr;
use std::time::Duration;

type Failure = Box<dyn Error>;

fn argument<T: std::str::FromStr>(name: &str, otherwise: T) -> Result<T, Failure>
where
    T::Err: Error + 'static,
{
    let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
    Ok(args.next().map(|text| text.parse()).transpose()?.unwrap_or(otherwise))
}

fn main() -> Result<(), Failure> {
    let plan = LoadPlan {
        address: (Ipv4Addr::LOCALHOST, argument("--port", 6379)?).into(),
        password: None,
        clients: argument("--clients", 64)?,
        time: Duration::from_secs_f64(argument("--seconds", 5.0)?),
        value: argument("--value", 128)?,
        keys: argument("--keys", 100_000)?,
        prefix: "key:".to_owned(),
        wait: std::env::args().any(|arg| arg == "--wait"),
    };
    let times = run(&plan, &|| false)?;
    let count = times.count();
    let [rate, p50, p99, p999] = times.told();
    let ms = |micros: f64| micros / 1000.0;
    println!(
        "{{\"updates\": {count}, \"per_second\": {rate:.1}, \"p50_ms\": {:.3}, \"p99_ms\": {:.3}, \"p999_ms\": {:.3}}}",
        ms(p50),
        ms(p99),
        ms(p999)
    );
    Ok(())
}
