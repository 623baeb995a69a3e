//! The metrics of a row: names, which direction is better, and the goals.

use super::row::{Layout, Proxies, Row, Work};

pub(super) struct Metric {
    /// The key in `results.json`.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) better: Better,
    pub(super) goals: Vec<Goal>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Better {
    Less,
    More,
}

/// A goal for the ambassador's number.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Goal {
    /// At most this value, independent of the peers.
    AtMost(f64),
    /// At least this good relative to the best peer: the factor.
    OfBest(f64),
    /// The same, relative to this peer.
    Of(&'static str, f64),
    /// Not worse than the best peer by more than this.
    AsGoodAsBest(f64),
}

/// The name of the subject without a proxy.
pub(super) const DIRECT: &str = "direct";

/// Two losses that differ by less than this many percent count as equal.
const SAME_LOSS: f64 = 0.1;

/// Returns the metrics of a row in the order in which they are shown.
pub(super) fn metrics(row: &Row) -> Vec<Metric> {
    use Better::{Less, More};
    use Goal::{AsGoodAsBest, AtMost, Of, OfBest};
    match row.proxies {
        Proxies::One => {}
        Proxies::Pair => return metrics_of_pair(row),
        Proxies::Tls(..) => return metrics_of_tls_side(row),
    }
    match row.work {
        Work::Bulk { workers: 1, .. } => vec![
            metric("cpu_s_per_gb", "CPU s/GB", Less, &[Of("haproxy-splice", 0.65), OfBest(0.75)]),
            metric("gbps", "Gb/s", More, &[OfBest(1.05)]),
        ],
        Work::Bulk { .. } => vec![
            metric("cpu_s_per_gb", "CPU s/GB", Less, &[]),
            metric("gbps", "Gb/s", More, &[]),
            // On a machine where no proxy scales, better and worse mean nothing.
            metric("scaling", "times 1 worker", More, &[OfBest(0.95)]),
        ],
        Work::Reply { connections, depth, .. } => {
            let many = connections > 1 && depth == 1 && row.layout == Layout::Loopback;
            let all = |goal| if many { vec![goal] } else { Vec::new() };
            vec![
                metric("cpu_us", "CPU us/op", Less, if depth == 1 { &[OfBest(0.95)] } else { &[] }),
                metric("per_s", "op/s", More, &all(OfBest(1.0))),
                metric("p50_us", "p50 us", Less, &[]),
                metric("p99_us", "p99 us", Less, &all(OfBest(1.0))),
                metric("p999_us", "p99.9 us", Less, &[]),
            ]
        }
        Work::Paced | Work::Mixed => vec![
            metric("cpu_us", "CPU us/op", Less, &[]),
            metric("per_s", "op/s", More, &[]),
            metric("p50_us", "p50 us", Less, &[]),
            metric("p99_us", "p99 us", Less, &[]),
            metric("p999_us", "p99.9 us", Less, &[]),
        ],
        Work::Connect { .. } => vec![
            metric("cpu_us", "CPU us/connection", Less, &[OfBest(0.85)]),
            metric("per_s", "connections/s", More, &[OfBest(1.2)]),
            metric("p50_us", "p50 us", Less, &[]),
            metric("p99_us", "p99 us", Less, &[]),
            metric("failed", "failed", Less, &[]),
        ],
        Work::Redis => vec![
            metric("cpu_us", "CPU us/op", Less, &[OfBest(0.95)]),
            metric("per_s", "op/s", More, &[OfBest(1.0)]),
            metric("p50_us", "p50 us", Less, &[]),
            metric("p99_us", "p99 us", Less, &[OfBest(1.0)]),
        ],
        Work::Udp { .. } => vec![
            metric("cpu_s_per_gb", "CPU s/GB", Less, &[]),
            metric("gbps", "Gb/s", More, &[OfBest(1.8)]),
            metric("loss_percent", "loss %", Less, &[AsGoodAsBest(SAME_LOSS)]),
        ],
        Work::Memory { .. } => vec![
            metric("idle_mb", "idle MB", Less, &[AtMost(2.0)]),
            metric("opened_kb", "KB/connection, silent", Less, &[AtMost(1.2)]),
            metric("asked_kb", "after a request", Less, &[AtMost(1.2)]),
            metric("busy_kb", "busy", Less, &[]),
            metric("closed_mb", "MB more after all closed", Less, &[AtMost(1.0)]),
        ],
        Work::Start => vec![metric("start_ms", "ms", Less, &[AtMost(15.0)])],
        Work::Range => vec![
            metric("bound_ms", "ms to bound", Less, &[AtMost(50.0)]),
            metric("range_mb", "MB more than for one port", Less, &[AtMost(2.0)]),
        ],
        Work::Size => {
            vec![
                metric("binary_mb", "binary MB", Less, &[]),
                metric("image_mb", "with libraries MB", Less, &[]),
            ]
        }
    }
}

/// Returns the metrics of two proxies together.
fn metrics_of_pair(row: &Row) -> Vec<Metric> {
    use Better::{Less, More};
    use Goal::{AtMost, Of, OfBest};
    let apart = matches!(row.layout, Layout::TwoHosts { .. });
    // With less delay, the machine is the limit.
    let far_apart = row.layout == Layout::TwoHosts { round_trip_ms: 20 };
    let if_far = |goal| if far_apart { vec![goal] } else { Vec::new() };
    match row.work {
        Work::Bulk { .. } if apart => vec![
            metric("cpu_s_per_gb", "CPU s/GB", Less, &[]),
            metric("gbps", "Gb/s", More, &if_far(Of(DIRECT, 0.9))),
        ],
        Work::Bulk { .. } => vec![
            metric("cpu_s_per_gb", "CPU s/GB", Less, &[OfBest(0.6)]),
            metric("gbps", "Gb/s", More, &[OfBest(1.6)]),
        ],
        // No round trip more than without a proxy.
        Work::Connect { .. } if apart => vec![
            metric("p50_us", "p50 us", Less, &if_far(Of(DIRECT, 1.1))),
            metric("p99_us", "p99 us", Less, &[]),
            metric("failed", "failed", Less, &[]),
        ],
        Work::Connect { .. } => vec![
            metric("cpu_us", "CPU us/connection", Less, &[]),
            metric("per_s", "connections/s", More, &[OfBest(6.0)]),
            metric("p50_us", "p50 us", Less, &[OfBest(0.2)]),
            metric("p99_us", "p99 us", Less, &[]),
            metric("failed", "failed", Less, &[]),
        ],
        Work::Mixed => vec![
            metric("alone_us", "p99 us alone", Less, &[]),
            metric("p99_us", "p99 us beside bulk", Less, &[Of("envoy", 1.0)]),
            metric("times", "times alone", Less, &[AtMost(3.0)]),
            metric("gbps", "Gb/s of bulk", More, &[]),
        ],
        Work::Memory { .. } => vec![
            metric("idle_mb", "idle MB", Less, &[]),
            metric("opened_kb", "KB/session, silent", Less, &[]),
            metric("asked_kb", "after a request", Less, &[AtMost(6.0)]),
            metric("closed_mb", "MB more after all closed", Less, &[]),
        ],
        _ => vec![
            metric("cpu_us", "CPU us/op", Less, &[OfBest(0.7)]),
            metric("per_s", "op/s", More, &[OfBest(1.5)]),
            metric("p50_us", "p50 us", Less, &[]),
            metric("p99_us", "p99 us", Less, &[]),
        ],
    }
}

/// Returns the metrics of one proxy with TLS on one side.
fn metrics_of_tls_side(row: &Row) -> Vec<Metric> {
    use Better::{Less, More};
    use Goal::OfBest;
    match row.work {
        Work::Bulk { .. } => {
            vec![metric("cpu_s_per_gb", "CPU s/GB", Less, &[]), metric("gbps", "Gb/s", More, &[OfBest(1.2)])]
        }
        Work::Connect { .. } => vec![
            metric("cpu_us", "CPU us/connection", Less, &[OfBest(1.0)]),
            metric("per_s", "connections/s", More, &[]),
            metric("p50_us", "p50 us", Less, &[]),
            metric("p99_us", "p99 us", Less, &[]),
            metric("failed", "failed", Less, &[]),
            metric("resumed_percent", "resumed %", More, &[]),
        ],
        Work::Memory { .. } => vec![
            metric("idle_mb", "idle MB", Less, &[]),
            metric("opened_kb", "KB/session, silent", Less, &[OfBest(0.5)]),
            metric("asked_kb", "after a request", Less, &[OfBest(0.5)]),
            metric("closed_mb", "MB more after all closed", Less, &[]),
        ],
        _ => vec![
            metric("cpu_us", "CPU us/op", Less, &[]),
            metric("per_s", "op/s", More, &[OfBest(1.0)]),
            metric("p50_us", "p50 us", Less, &[]),
            metric("p99_us", "p99 us", Less, &[]),
        ],
    }
}

fn metric(name: &'static str, title: &'static str, better: Better, goals: &[Goal]) -> Metric {
    Metric { name, title, better, goals: goals.to_vec() }
}
