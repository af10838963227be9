//! `countersign webhooks`: what targets outside were not told, on a gateway that runs somewhere.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use countersign_console::{note, say};
use serde_json::{Value, json};

use super::exit::Ended;
use super::requests::{CREDENTIALS, Format, Gateway, failed, list, print_table, text};
use crate::environment::Environment;
use crate::text::{cut, plain, pretty};

/// The widest cell of a table, in characters.
const WIDEST: usize = 60;

/// List dead letters of webhooks and send them again, as an admin of a gateway.
#[derive(Debug, Args)]
pub struct WebhooksCommand {
    #[command(subcommand)]
    act: Act,
}

/// What is done.
#[derive(Debug, Subcommand)]
enum Act {
    /// List dead letters, and how much waits for each target.
    #[command(after_long_help = CREDENTIALS)]
    List(List),
    /// Have dead letters sent again, now, and then whatever happened to their requests later.
    #[command(after_long_help = CREDENTIALS)]
    Resend(Resend),
}

/// Which dead letters are listed, and how.
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    gateway: Gateway,
    /// Only this target, such as `webhook:audit-lake`.
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// How many of each target at most.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Which dead letters are sent again.
#[derive(Debug, Args)]
struct Resend {
    #[command(flatten)]
    gateway: Gateway,
    /// The ids of dead letters, as `list` prints them.
    #[arg(value_name = "ID", required_unless_present = "target", conflicts_with = "target")]
    ids: Vec<String>,
    /// All dead letters of this target, such as `webhook:audit-lake`.
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
}

impl WebhooksCommand {
    /// Does it.
    pub async fn run(&self, environment: &Environment) -> ExitCode {
        let done = match &self.act {
            Act::List(list) => list.run(environment).await,
            Act::Resend(resend) => resend.run(environment).await,
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(Ended { exit, why }) => {
                note!("error: {why}");
                exit.into()
            }
        }
    }
}

fn path(target: Option<&str>, limit: usize) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &limit.to_string());
    if let Some(target) = target {
        query.append_pair("target", target);
    }
    format!("/api/admin/webhooks/dead?{}", query.finish())
}

fn row(of: &Value, paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| cut(&plain(&text(of, path)), WIDEST)).collect()
}

impl List {
    async fn run(&self, environment: &Environment) -> Result<(), Ended> {
        let client = self.gateway.client(environment).await?;
        let answer = client.read(&path(self.target.as_deref(), self.limit)).await.map_err(failed)?;
        if self.format == Format::Json {
            say!("{}", pretty(&answer));
            return Ok(());
        }
        let targets = list(&answer, "/targets").iter();
        let paths = ["/target", "/waiting", "/oldest", "/dead"];
        print_table(&["TARGET", "WAITING", "SINCE", "DEAD"], targets.map(|it| row(it, &paths)).collect());
        let letters = list(&answer, "/deadLetters");
        if !letters.is_empty() {
            say!("");
            let paths = ["/id", "/target", "/event", "/diedAt", "/failure"];
            let rows = letters.iter().map(|it| row(it, &paths)).collect();
            print_table(&["ID", "TARGET", "EVENT", "GIVEN UP", "WHY"], rows);
        }
        Ok(())
    }
}

/// As many as one answer has.
const PAGE: usize = 500;

impl Resend {
    async fn run(&self, environment: &Environment) -> Result<(), Ended> {
        let client = self.gateway.client(environment).await?;
        let mut ids = self.ids.clone();
        if let Some(target) = &self.target {
            let answer = client.read(&path(Some(target), PAGE)).await.map_err(failed)?;
            let letters = list(&answer, "/deadLetters").iter();
            ids = letters.map(|letter| text(letter, "/id")).collect();
            if ids.is_empty() {
                note!("`{}` has no dead letters", plain(target));
            }
        }
        for id in &ids {
            let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
            let answer = client.act(&format!("/api/admin/webhooks/dead/{id}/resend"), &json!({})).await;
            let answer = answer.map_err(failed)?;
            say!("{} to {}", plain(&text(&answer, "/id")), plain(&text(&answer, "/target")));
        }
        if ids.len() == PAGE {
            note!("there may be more; run it again");
        }
        Ok(())
    }
}
