//! Metrics of this process, from Linux' `/proc`, under the names that Prometheus' client libraries use. They are left
//! out on systems without `/proc`.

use super::text::{Text, counter, gauge};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use std::fs;

/// The fields of `/proc/self/stat` that are shown.
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
        // One of them is the directory that is being read here.
        let open = open.count().saturating_sub(1);
        text.one(gauge("process_open_fds", "Files and sockets that are open."), open);
    }
    if let Some(max) = getrlimit(Resource::Nofile).current {
        text.one(gauge("process_max_fds", "Files and sockets that may be open."), max);
    }
}

/// Bytes read from and written to devices, under Kafka's names.
fn write_disk(text: &mut Text) {
    let Ok(content) = fs::read_to_string("/proc/self/io") else { return };
    if let Some(bytes) = field(&content, "read_bytes: ") {
        text.one(counter("kafka_server_kafkaserver_linux_disk_read_bytes", "Bytes read from devices."), bytes);
    }
    if let Some(bytes) = field(&content, "write_bytes: ") {
        text.one(counter("kafka_server_kafkaserver_linux_disk_write_bytes", "Bytes written to devices."), bytes);
    }
}

/// Parses `/proc/self/stat`, see proc(5). The process's name in it may contain blanks and brackets, so the fields are
/// counted from behind it.
fn parse_stat(content: &str) -> Option<Stat> {
    let fields: Vec<&str> = content.get(content.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    // The first field behind the name is number 3 in proc(5).
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_ticks: field(14)? + field(15)?,
        start_ticks: field(22)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

/// The number in the line that begins with `name`.
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

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_used_some_time_and_memory() {
        let stat = parse_stat(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        assert!(stat.resident_pages > 0 && stat.virtual_bytes > stat.resident_pages && stat.start_ticks > 0);
    }
}
