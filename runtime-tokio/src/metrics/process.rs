//! This process as Linux sees it, under the names that Prometheus' clients have for it. Where there is no `/proc`
//! they are left out.

use super::text::{Text, counter, gauge};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use std::fs;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

pub fn write(text: &mut Text) {
    text.family(gauge("tidelog_build_info", "1, with the version that runs."))
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(parse_stat) else { return };
    let ticks = clock_ticks_per_second() as f64;
    let cpu = stat.cpu_ticks as f64 / ticks;
    text.one(counter("process_cpu_seconds_total", "Processor time of the process, user and system."), cpu);
    let resident = stat.resident_pages * page_size() as u64;
    text.one(gauge("process_resident_memory_bytes", "Memory of the process that is in RAM."), resident);
    text.one(gauge("process_virtual_memory_bytes", "Addresses that the process has taken."), stat.virtual_bytes);
    if let Some(boot) = fs::read_to_string("/proc/stat").ok().as_deref().and_then(|content| field(content, "btime ")) {
        let start = boot as f64 + stat.start_ticks as f64 / ticks;
        text.one(gauge("process_start_time_seconds", "When the process started, in seconds since 1970."), start);
    }
    write_disk(text);
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The one that reads the directory is not the broker's.
        let open = open.count().saturating_sub(1);
        text.one(gauge("process_open_fds", "Files and sockets that are open."), open);
    }
    if let Some(max) = getrlimit(Resource::Nofile).current {
        text.one(gauge("process_max_fds", "Files and sockets that may be open."), max);
    }
}

/// Kafka's own names for what the process has moved from and to devices.
fn write_disk(text: &mut Text) {
    let Ok(content) = fs::read_to_string("/proc/self/io") else { return };
    if let Some(bytes) = field(&content, "read_bytes: ") {
        text.one(counter("kafka_server_kafkaserver_linux_disk_read_bytes", "Bytes read from devices."), bytes);
    }
    if let Some(bytes) = field(&content, "write_bytes: ") {
        text.one(counter("kafka_server_kafkaserver_linux_disk_write_bytes", "Bytes written to devices."), bytes);
    }
}

/// `/proc/self/stat`, see proc(5). The name in it may have blanks and brackets: the fields are counted behind it.
fn parse_stat(content: &str) -> Option<Stat> {
    let fields: Vec<&str> = content.get(content.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    // The first of them is the third of the page.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_ticks: field(14)? + field(15)?,
        start_ticks: field(22)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

/// The number of the line that begins with `name`.
fn field(content: &str, name: &str) -> Option<u64> {
    content.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_stand_behind_the_name_whatever_is_in_it() {
        let content = "1234 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22\n";
        let stat = parse_stat(content).unwrap();
        assert_eq!(stat, Stat { cpu_ticks: 11 + 12, start_ticks: 19, virtual_bytes: 20, resident_pages: 21 });
        assert_eq!(parse_stat("1 (a) S 1 2"), None);
        assert_eq!(parse_stat("no brackets"), None);
        assert_eq!(field("cpu 1 2\nbtime 1700000000\nprocesses 3\n", "btime "), Some(1_700_000_000));
        assert_eq!(field("rchar: 1\nread_bytes: 4096\nwrite_bytes: 8192\n", "write_bytes: "), Some(8192));
        assert_eq!(field("", "btime "), None);
    }

    #[test]
    fn this_process_has_used_some_time_and_memory() {
        let stat = parse_stat(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        assert!(stat.resident_pages > 0 && stat.virtual_bytes > stat.resident_pages && stat.start_ticks > 0);
    }
}
