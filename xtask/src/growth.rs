//! `cargo xtask growth`: runs the measurement of `tests/it/growth.rs` with optimization and writes its page and plots
//! to `docs/internals/benchmarks`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::plot::{Axis, Scale, Series, lines, number};
use crate::process::{cargo, command, output, succeed};

const DIR: &str = "docs/internals/benchmarks";
/// The goals for growth.
const RELOAD_GOAL_MS: f64 = 1_000.0;
const WAIT_GOAL_MS: f64 = 5.0;

/// The kinds of reload: the key in the document and the title in the page.
const RELOADS: [(&str, &str); 4] = [
    ("one", "one target changes"),
    ("hundred", "100 targets change"),
    ("all", "all targets change"),
    ("half", "half are removed"),
];

pub(crate) fn run() -> Result<()> {
    // Built first, so that no compiler runs during the measurement.
    succeed(&mut cargo("test --release --test it --no-run --quiet"))?;
    let dir = Path::new(DIR);
    fs::create_dir_all(dir)?;
    let path = std::path::absolute(dir.join("growth.json"))?;
    let mut measure = cargo("test --release --test it --quiet growth:: -- --ignored --nocapture");
    succeed(measure.env("AMBASSADOR_GROWTH", &path))?;
    let mut measured: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    measured["machine"] = machine()?;
    fs::write(&path, format!("{measured:#}\n"))?;
    for (name, svg) in plots(&measured) {
        fs::write(dir.join(name), svg)?;
    }
    let page = page(&measured).context("the measurement lacks a value")?;
    fs::write(dir.join("growth.md"), &page)?;
    print!("{page}");
    Ok(())
}

fn machine() -> Result<Value> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(json!({
        "cpu": model.map_or("unknown", |(_, model)| model),
        "cores": std::thread::available_parallelism()?.get(),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "commit": output(&mut command("git rev-parse --short HEAD"))?,
        "date": output(&mut command("date --utc +%F"))?,
    }))
}

// === plots ===

fn plots(measured: &Value) -> Vec<(&'static str, String)> {
    let over = |label| Axis { label, scale: Scale::Log };
    let from_zero = |label| Axis { label, scale: Scale::Linear };
    let (endpoints, sessions, routes) = (over("endpoints of the route"), over("sessions"), over("routes"));
    let of_sessions = |key, name| [series(&measured["sessions"], "sessions", &[key], name)];
    let of_reloads = |key, other: (&[&str], &str)| {
        let kind = |(kind, name): &(&str, &str)| series(&measured["reloads"], "routes", &[kind, key], name);
        let (path, name) = other;
        let other = series(&measured["reloads"], "routes", path, name);
        RELOADS.iter().map(kind).chain([other]).collect::<Vec<_>>()
    };
    let picks = lines("A pick", &endpoints, &over("ns"), &by_balance(measured, "pick_ns"));
    let updates = lines(
        "One endpoint of a route changes",
        &endpoints,
        &over("ms of the control thread"),
        &by_balance(measured, "update_ms"),
    );
    let memory = of_sessions("bytes_each", "an idle session");
    let memory = lines("Memory", &sessions, &from_zero("bytes in user space, each"), &memory);
    let cpu = of_sessions("cpu_us", "a request, 50 sessions active");
    let cpu = lines("CPU", &sessions, &from_zero("us of the ambassador"), &cpu);
    let reload = of_reloads("ms", (&["start_ms"], "start"));
    let reload = lines("From SIGHUP until the last route is updated", &routes, &over("ms"), &reload);
    let wait = of_reloads("longest_wait_ms", (&["quiet", "longest_wait_ms"], "no reload"));
    let wait = lines("Longest request latency during the reload", &routes, &from_zero("ms"), &wait);
    vec![
        ("growth-picks.svg", picks),
        ("growth-updates.svg", updates),
        ("growth-memory.svg", memory),
        ("growth-cpu.svg", cpu),
        ("growth-reload.svg", reload),
        ("growth-wait.svg", wait),
    ]
}

fn by_balance(measured: &Value, key: &str) -> Vec<Series> {
    let rows = |name: &str| -> Value {
        rows(&measured["picks"]).filter(|row| row["balance"] == name).cloned().collect()
    };
    balances(measured).iter().map(|name| series(&rows(name), "endpoints", &[key], name)).collect()
}

/// Returns the balancers in the order in which they were measured.
fn balances(measured: &Value) -> Vec<String> {
    let mut names: Vec<String> =
        rows(&measured["picks"]).filter_map(|row| Some(row["balance"].as_str()?.to_owned())).collect();
    names.dedup();
    names
}

/// Returns one point per row: its `x`, and the value at the end of `path`.
fn series(list: &Value, x: &str, path: &[&str], name: &str) -> Series {
    let point = |row: &Value| Some((row[x].as_f64()?, at(row, path)?));
    Series { name: name.to_owned(), points: rows(list).filter_map(point).collect() }
}

fn rows(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn at(row: &Value, path: &[&str]) -> Option<f64> {
    path.iter().fold(row, |value, key| &value[key]).as_f64()
}

// === the page ===

fn page(measured: &Value) -> Option<String> {
    let machine = &measured["machine"];
    let text = |key: &str| machine[key].as_str();
    let mut page = format!(
        "# Cost by number of endpoints, sessions and routes\n\n\
         Measured by `cargo xtask growth` on {}, at {}: {}, {} cores, Linux {}. The numbers are in \
         [growth.json](growth.json). Capacity planning: [scaling.md](../../scaling.md).\n",
        text("date")?,
        text("commit")?,
        text("cpu")?,
        machine["cores"],
        text("kernel")?
    );
    page += &picks(measured)?;
    page += &sessions(measured)?;
    page += &reloads(measured)?;
    page += &endpoints(measured)?;
    Some(page)
}

fn picks(measured: &Value) -> Option<String> {
    let mut text = "\n## A pick\n\n\
         The choice of an endpoint for one session, in nanoseconds; each endpoint has one session. `least-connections` \
         compares at most 64 endpoints.\n\n![picks](growth-picks.svg)\n\n"
        .to_owned();
    text += &table_by_balance(measured, "pick_ns")?;
    text += "\n## One endpoint changes\n\n\
         Time of the control thread to update the cluster, in milliseconds. Sessions are not delayed.\n\n\
         ![updates](growth-updates.svg)\n\n";
    text += &table_by_balance(measured, "update_ms")?;
    Some(text)
}

fn table_by_balance(measured: &Value, key: &str) -> Option<String> {
    let all = by_balance(measured, key);
    let counts: Vec<String> = all.first()?.points.iter().map(|(count, _)| count.to_string()).collect();
    let mut text = format!("| endpoints | {} |\n|---{}|\n", counts.join(" | "), "|---".repeat(counts.len()));
    for Series { name, points } in all {
        let values: Vec<String> = points.iter().map(|(_, value)| number(*value)).collect();
        writeln!(text, "| `{name}` | {} |", values.join(" | ")).ok()?;
    }
    Some(text)
}

fn sessions(measured: &Value) -> Option<String> {
    let mut text = "\n## A session\n\n\
         Memory of the process per idle session, and its CPU time for a request and a response of one byte on 50 of \
         them.\n\n![memory](growth-memory.svg)\n\n![cpu](growth-cpu.svg)\n\n\
         | sessions | bytes each | us per request |\n|---|---|---|\n"
        .to_owned();
    for row in rows(&measured["sessions"]) {
        let (bytes, cpu) = (row["bytes_each"].as_f64()?, row["cpu_us"].as_f64()?);
        writeln!(text, "| {} | {} | {} |", row["sessions"], number(bytes), number(cpu)).ok()?;
    }
    Some(text)
}

fn reloads(measured: &Value) -> Option<String> {
    let mut text = format!(
        "\n## A reload\n\n\
         Time from `SIGHUP` until the last route of the file uses its new target, and the longest latency of a request \
         meanwhile, of one client that sends requests continuously through the first route. In brackets the latency of a \
         client that connects directly to the server, which shows the noise of the machine. Goals: a reload of 10,000 \
         routes below {RELOAD_GOAL_MS} ms, no latency above {WAIT_GOAL_MS} ms caused by the ambassador.\n\n\
         ![reload](growth-reload.svg)\n\n![wait](growth-wait.svg)\n\n\
         | routes | change | ms | longest latency, ms | above {WAIT_GOAL_MS} ms, of requests |\n|---|---|---|---|---|\n"
    );
    for row in rows(&measured["reloads"]) {
        let routes = &row["routes"];
        writeln!(text, "| {routes} | start | {} | | |", number(row["start_ms"].as_f64()?)).ok()?;
        for (kind, name) in [("quiet", "none")].into_iter().chain(RELOADS) {
            text += &reload(routes, name, &row[kind])?;
        }
        writeln!(text, "| {routes} | memory of the process, per route: {} bytes | | | |", row["bytes_each"])
            .ok()?;
    }
    Some(text)
}

fn endpoints(measured: &Value) -> Option<String> {
    let mut text = "\n## One line of a file of endpoints\n\n\
         The same for one endpoint added to a route.\n\n\
         | endpoints | change | ms | longest latency, ms | above 5 ms, of requests |\n|---|---|---|---|---|\n"
        .to_owned();
    for row in rows(&measured["endpoints"]) {
        text += &reload(&row["endpoints"], "none", &row["quiet"])?;
        text += &reload(&row["endpoints"], "one added", &row["one"])?;
    }
    Some(text)
}

fn reload(count: &Value, name: &str, row: &Value) -> Option<String> {
    let value = |key| at(row, &[key]).map(number);
    Some(format!(
        "| {count} | {name} | {} | {} ({}) | {} of {} ({} of {}) |\n",
        value("ms")?,
        value("longest_wait_ms")?,
        value("past_it_longest_wait_ms")?,
        row["long_waits"],
        row["requests"],
        row["past_it_long_waits"],
        row["past_it_requests"],
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{balances, by_balance, reload, series};

    #[test]
    fn a_series_has_a_point_for_each_row_that_has_the_value() {
        let list = json!([{"n": 1, "a": {"ms": 2.0}}, {"n": 2}, {"n": 3, "a": {"ms": 4.0}}]);
        assert_eq!(series(&list, "n", &["a", "ms"], "x").points, [(1.0, 2.0), (3.0, 4.0)]);
    }

    #[test]
    fn each_balancer_has_its_own_series_in_the_order_of_the_document() {
        let row = |balance, endpoints, ns| json!({"balance": balance, "endpoints": endpoints, "ns": ns});
        let measured = json!({"picks": [row("b", 1, 5), row("b", 2, 6), row("a", 1, 7)]});
        assert_eq!(balances(&measured), ["b", "a"]);
        let points: Vec<_> = by_balance(&measured, "ns").into_iter().map(|series| series.points).collect();
        assert_eq!(points, [vec![(1.0, 5.0), (2.0, 6.0)], vec![(1.0, 7.0)]]);
    }

    #[test]
    fn row_without_a_number_is_omitted() {
        assert_eq!(reload(&json!(1), "x", &json!({"ms": 1.0})), None);
    }
}
