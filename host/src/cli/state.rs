//! How does a person see, save and bring what plugins remember?
//!
//! A client of the admin pages of `/state`.

use std::io::{self, BufRead, Write};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::args::{Client, Import, OneTable, State, StateAction};
use super::client::{gone, inside, odd_answer, once, print, send, tamed};
use super::render::count;
use crate::error::{Code, Error, Result};

/// How many lines, and about how many bytes, go to the host at once.
const LINES: usize = 500;
const BYTES: usize = 1 << 20;

/// `midair state`.
///
/// # Errors
///
/// No host answers, it refuses, or a line is wrong.
pub(super) fn run(ask: &State) -> Result<()> {
    match &ask.what {
        None => list(&ask.client),
        Some(StateAction::Export(table)) => export(table),
        Some(StateAction::Import(table)) => import(table),
    }
}

#[derive(Deserialize)]
struct Tables {
    tables: Vec<Table>,
}

#[derive(Deserialize)]
struct Table {
    plugin: String,
    table: String,
    values: u64,
    bytes: u64,
}

fn list(ask: &Client) -> Result<()> {
    let body = once(ask, Method::GET, "/state")?;
    if ask.json {
        return print(&body);
    }
    let Tables { tables } = tamed(&body).map_err(|error| odd_answer("/state").caused_by(error))?;
    if tables.is_empty() {
        return print("no table holds anything");
    }
    let name = |table: &Table| format!("{}/{}", table.plugin, table.table);
    let width = tables.iter().map(|table| name(table).len()).max().unwrap_or_default();
    let lines =
        tables.iter().map(|table| format!("{:width$}  {:>10} values  {:>12} bytes", name(table), table.values, table.bytes));
    print(&lines.collect::<Vec<_>>().join("\n"))
}

fn page(table: &OneTable) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    format!("/state/{}/{}", encode(&table.table.0), encode(&table.table.1))
}

fn export(table: &OneTable) -> Result<()> {
    inside(async {
        let mut body = send(&table.client, Method::GET, &page(table), Bytes::new()).await?.into_body();
        let mut out = io::stdout().lock();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| gone().caused_by(error))?.into_data() else { continue };
            match out.write_all(&data) {
                Ok(()) => {}
                // Whoever closes the pipe has read enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(Error::fatal(Code::Io, "stdout", "it can't be written").caused_by(error)),
            }
        }
        Ok(())
    })
}

fn import(Import { force, to: table }: &Import) -> Result<()> {
    let (mut batch, mut lines, mut written) = (Vec::new(), 0, 0);
    let mut input = io::stdin().lock();
    loop {
        let end = input
            .read_until(b'\n', &mut batch)
            .map_err(|error| Error::fatal(Code::Io, "stdin", "it can't be read").caused_by(error))?
            == 0;
        lines += usize::from(!end);
        if lines > 0 && (end || lines == LINES || batch.len() >= BYTES) {
            let page = format!("{}?line={}&force={force}", page(table), written + 1);
            let body = Bytes::from(std::mem::take(&mut batch));
            let sent = inside(async {
                send(&table.client, Method::POST, &page, body).await?.collect().await.map_err(|error| gone().caused_by(error))
            });
            if let Err(error) = sent {
                let before = format!("the {written} lines before this batch were written; what is written twice is the same");
                return Err(if written > 0 { error.help(before) } else { error });
            }
            written += lines;
            lines = 0;
        }
        if end {
            break;
        }
    }
    let (plugin, name) = &table.table;
    print(&if table.client.json {
        format!("{{\"lines\":{written}}}")
    } else {
        format!("written to {plugin}/{name}: {}", count(written, "line"))
    })
}
