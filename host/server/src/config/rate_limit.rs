//! How often a client address may make requests.

use clap::Args;

/// The rate limit: each client address has a bucket of requests.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Rate limit")]
pub struct RateLimit {
    /// How many requests a client address may make at once.
    #[arg(long = "rate-limit-capacity", value_name = "RATE_LIMIT_CAPACITY", default_value = "30")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub capacity: u32,
    /// How many requests are added to its bucket each second; may be a fraction.
    #[arg(long = "rate-limit-refill-per-sec", value_name = "RATE_LIMIT_REFILL_PER_SEC", default_value = "1")]
    #[arg(value_parser = refill)]
    pub refill_per_sec: f64,
}

fn refill(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.000_1..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("this is a number from 0.0001 to 1000000".into()),
    }
}
