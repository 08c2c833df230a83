"""The rivals: how each is found, started at its best settings, and asked what it has stored.

A rival names when it answers:

    none        nothing is stored
    memory      before the events have left the process: a crash of the process loses them
    page cache  the kernel, or the device's cache, has them: a crash of the process loses nothing, a power cut does
    synced      the device has confirmed that they are durable

Settings that a rival's documentation recommends for throughput are used where they do not change when it answers.
"""

import os
import pathlib
import re
import shutil
import subprocess
import urllib.parse
import urllib.request

from measuring import ending

NONE, MEMORY, PAGE_CACHE, SYNCED = CLASSES = ["none", "memory", "page cache", "synced"]
ROOT = pathlib.Path(__file__).resolve().parents[2]
# A benchmark must not fill the disk: what is kept of a log while it runs.
RETENTION = "4GiB"
NGINX_MODULES = pathlib.Path("/usr/lib/nginx/modules")


def first_line(*command):
    """What a program says about itself, or None if it is not there."""
    try:
        said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[0] if lines else None


def program(name):
    """Path of a program, also of one that is only on root's PATH."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def lines_in(paths):
    """Events in files of one event a line; zeros that a file was filled with in advance end it."""
    events = 0
    for path in paths:
        with open(path, "rb") as file:
            for line in file:
                if line.startswith(b"\0"):
                    break
                events += bool(line.strip())
    return events


class Rival:
    """What all have in common. `key` names files, `name` is printed."""

    key = name = durability = ""
    # What it checks of an event before it answers.
    validates = "JSON"
    path = "/v1/events"
    content_type = None
    check = "status"
    helpers = None

    def version(self):
        """Its version, or None if it is not on this machine."""
        raise NotImplementedError

    def start(self, place):
        raise NotImplementedError

    def stored(self, place):
        """Events that it has after a kill -9; None if it stores none."""
        return None

    def load_arguments(self):
        """What the generator must know about it."""
        told = ["--check", self.check, "--path", self.path]
        return told + (["--content-type", self.content_type] if self.content_type else [])


class Sink(Rival):
    """A bare io_uring loop that receives the same bytes and does nothing with them."""

    durability = NONE
    validates = "nothing"

    def __init__(self, binaries, mode):
        self.binary = binaries["tidegate-load"]
        self.mode = mode
        self.key = f"sink-{mode}"
        self.name = {"drop": "io_uring, receive and drop", "answer": "io_uring, answer 204"}[mode]
        self.check = {"drop": "nothing", "answer": "status"}[mode]

    def version(self):
        return first_line(self.binary, "--version")

    def start(self, place):
        place.start([self.binary, "sink", "--mode", self.mode, "--listen", f"127.0.0.1:{place.port}",
                     "--core", place.cores.server])


class Tidegate(Rival):
    """tidegate with one shard. Its level `written` is O_DIRECT: past the page cache, in the device's own.

    With the default target it would answer 503 from two thirds of its core on, and nobody else here refuses anything.
    """

    target_utilization = "1.0"

    def __init__(self, binaries, ack):
        self.binary = binaries["tidegate"]
        self.ack = ack
        self.key = f"tidegate-{ack}"
        self.name = f"tidegate, ack {ack}"
        self.durability = {"durable": SYNCED, "written": PAGE_CACHE, "memory": MEMORY}[ack]

    def version(self):
        return first_line(self.binary, "--version")

    def start(self, place):
        cores = place.cores
        place.start(
            [self.binary, "serve", "--listen", f"127.0.0.1:{place.port}", "--admin", f"127.0.0.1:{place.other_port}",
             "--data", "data", "--shards", 1, "--shard-cores", cores.server, "--writer-cores", cores.helper,
             "--control-core", cores.helper, "--ack", self.ack, "--target-utilization", self.target_utilization,
             "--lag-target", 0, "--retention-bytes", RETENTION],
            {cores.server, cores.helper},
            # It listens before its first segments are filled with zeros.
            ready="/ready",
        )

    def stored(self, place):
        cat = ending.run([self.binary, "cat", "--data", place.home / "data"], stdout=subprocess.PIPE, check=True)
        return cat.stdout.count(b"\n")


def locked(crate):
    """Version of a crate in Cargo.lock."""
    found = re.search(rf'name = "{crate}"\nversion = "([^"]+)"', (ROOT / "Cargo.lock").read_text())
    return f"{crate} {found[1]}"


class Axum(Rival):
    """What a team would build: axum, tokio, a writer thread with group commit (loadtest/shootout/axum-fdatasync)."""

    def __init__(self, binaries, ack):
        self.binary = binaries["axum-fdatasync"]
        self.ack = ack
        self.key = f"axum-{ack}"
        self.name = {"synced": "axum + tokio, group fdatasync", "written": "axum + tokio, write",
                     "memory": "axum + tokio, queue"}[ack]
        self.durability = {"synced": SYNCED, "written": PAGE_CACHE, "memory": MEMORY}[ack]

    def version(self):
        return ", ".join(map(locked, ("axum", "tokio", "serde_json")))

    def start(self, place):
        cores = place.cores
        place.start([self.binary, "--listen", f"127.0.0.1:{place.port}", "--data", "data", "--ack", self.ack,
                     "--worker-cores", cores.server, "--writer-core", cores.helper], {cores.server, cores.helper})

    def stored(self, place):
        return lines_in((place.home / "data").iterdir())


class Nginx(Rival):
    """nginx with one worker: discarding (the HTTP floor), or appending each body to a file, one write(2) each."""

    validates = "nothing"

    def __init__(self, appends):
        self.appends = appends
        self.key = "nginx-append" if appends else "nginx-204"
        self.name = "nginx + Lua, append to a file" if appends else "nginx, 204"
        self.durability = PAGE_CACHE if appends else NONE

    def version(self):
        binary = program("nginx")
        if not binary or self.appends and not (NGINX_MODULES / "ngx_http_lua_module.so").exists():
            return None
        return first_line(binary, "-v")

    def start(self, place):
        temporary = "".join(f"{kind}_temp_path {place.home}/{kind};\n" for kind in
                            ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        modules = location = begin = ""
        if self.appends:
            modules = "".join(f"load_module {NGINX_MODULES}/{name}_module.so;\n" for name in ("ndk_http", "ngx_http_lua"))
            begin = f'init_worker_by_lua_block {{ events = io.open("{place.home}/events", "a") events:setvbuf("no") }}'
            location = ('content_by_lua_block { ngx.req.read_body() local body = ngx.req.get_body_data() '
                        'if body:byte(-1) ~= 10 then body = body .. "\\n" end events:write(body) ngx.exit(204) }')
        # client_header_buffer_size: one recv takes a whole batch; with the default of 1 KiB nginx discards by 4 KiB.
        configuration = place.file("nginx.conf", f"""daemon off; master_process off; worker_processes 1;
pid {place.home}/pid; error_log {place.log_path}; {modules}
events {{ worker_connections 10000; use epoll; multi_accept on; }}
http {{
    access_log off; tcp_nodelay on; client_max_body_size 0; client_body_buffer_size 1m;
    client_header_buffer_size {"8k" if self.appends else "128k"};
    keepalive_requests 1000000000; keepalive_timeout 600s;
    {temporary} {begin}
    server {{ listen 127.0.0.1:{place.port} backlog=8192; location / {{ {location or "return 204;"} }} }}
}}
""")
        place.start([program("nginx"), "-c", configuration, "-p", place.home])

    def stored(self, place):
        return lines_in([place.home / "events"]) if self.appends else None


class ClickHouse(Rival):
    """ClickHouse's HTTP insert. What it can promise depends on its version, so its variants do."""

    helpers = r"^(Backgr|BgSch|Bg|Merge)"
    columns = ", ".join(
        [f"{name} String" for name in
         "event_id app_id event_type event_name user_id session_id device_id platform country campaign_id channel currency".split()]
        + ["timestamp Int64", "revenue Float64"])
    # A part per insert and no limit on parts: nothing but inserting, and merging behind it. Without a sorting key.
    merge_tree = "MergeTree ORDER BY tuple() SETTINGS parts_to_delay_insert = 100000, parts_to_throw_insert = 100000"
    fsync = ", fsync_after_insert = 1, fsync_part_directory = 1"
    # variant: (oldest version, durability, what it is called, engine of the table, settings of the insert)
    variants = {
        "buffer": ((0, 0), MEMORY, "Buffer table", merge_tree, ""),
        "async": ((21, 11), MEMORY, "async_insert, no wait", merge_tree, "&async_insert=1&wait_for_async_insert=0"),
        # The engine that is made for many small inserts.
        "stripelog": ((0, 0), PAGE_CACHE, "StripeLog", "StripeLog", ""),
        "mergetree": ((0, 0), PAGE_CACHE, "MergeTree", merge_tree, ""),
        "mergetree-fsync": ((20, 9), SYNCED, "MergeTree, fsync", merge_tree + fsync, ""),
        "async-fsync": ((21, 11), SYNCED, "async_insert, wait, fsync", merge_tree + fsync,
                        "&async_insert=1&wait_for_async_insert=1"),
    }

    def __init__(self, variant):
        self.variant = variant
        self.oldest, self.durability, label, self.engine, insert = self.variants[variant]
        self.key = f"clickhouse-{variant}"
        self.name = f"ClickHouse, {label}"
        self.table = "events_buffer" if variant == "buffer" else "events"
        self.path = f"/?query={urllib.parse.quote(f'INSERT INTO {self.table} FORMAT JSONEachRow')}{insert}"

    def _version(self):
        said = first_line(program("clickhouse-client") or "clickhouse-client", "--version") if program("clickhouse-server") else None
        found = re.search(r"(\d+)\.(\d+)[.\d]*", said or "")
        return (found[0].rstrip("."), (int(found[1]), int(found[2]))) if found else None

    def version(self):
        found = self._version()
        # The server of the oldest packages does not tell its version; its client, of the same package, does.
        return f"ClickHouse {found[0]}" if found and found[1] >= self.oldest else None

    def _run(self, place):
        root = "clickhouse" if self._version()[1] >= (21, 10) else "yandex"
        place.file("users.xml", f"""<{root}>
  <profiles><default><input_format_skip_unknown_fields>1</input_format_skip_unknown_fields></default></profiles>
  <users><default><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>
  <quota>default</quota></default></users><quotas><default/></quotas>
</{root}>""")
        configuration = place.file("config.xml", f"""<{root}>
  <logger><level>warning</level><log>{place.log_path}.log</log><errorlog>{place.log_path}.err</errorlog></logger>
  <http_port>{place.port}</http_port><listen_host>127.0.0.1</listen_host><tcp_port>{place.other_port}</tcp_port>
  <max_connections>4096</max_connections><keep_alive_timeout>600</keep_alive_timeout>
  <max_concurrent_queries>4096</max_concurrent_queries><mark_cache_size>67108864</mark_cache_size>
  <path>{place.home}/data/</path><tmp_path>{place.home}/tmp/</tmp_path>
  <users_config>users.xml</users_config><default_profile>default</default_profile>
  <default_database>default</default_database>
</{root}>""")
        place.start([program("clickhouse-server"), f"--config-file={configuration}"])
        place.move_helpers(self.helpers)

    def start(self, place):
        self._run(place)
        self._ask(place, f"CREATE TABLE events ({self.columns}) ENGINE = {self.engine}")
        if self.variant == "buffer":
            self._ask(place, "CREATE TABLE events_buffer AS events ENGINE = "
                             "Buffer(default, events, 1, 1, 10, 10000, 1000000, 1000000, 100000000)")

    def stored(self, place):
        self._run(place)
        count = int(self._ask(place, f"SELECT count() FROM {self.table}"))
        place.stop()
        return count

    @staticmethod
    def _ask(place, query):
        with urllib.request.urlopen(f"http://127.0.0.1:{place.port}/", data=query.encode(), timeout=60) as answer:
            return answer.read().decode()


class VictoriaLogs(Rival):
    """Keeps what it received in memory for up to a second before it is written."""

    key, name, durability = "victorialogs", "VictoriaLogs", MEMORY
    path = "/insert/jsonline?_stream_fields=app_id&_msg_field=event_name"

    def version(self):
        binary = program("victoria-logs")
        return first_line(binary, "-version") if binary else None

    def start(self, place):
        place.start([program("victoria-logs"), "-storageDataPath=data", f"-httpListenAddr=127.0.0.1:{place.port}",
                     "-loggerLevel=ERROR"], environment={"GOMAXPROCS": "1"})

    def stored(self, place):
        self.start(place)
        asked = f"http://127.0.0.1:{place.port}/select/logsql/query?query={urllib.parse.quote('* | count() events')}"
        with urllib.request.urlopen(asked, timeout=60) as answer:
            count = int(re.search(rb'"events":"(\d+)"', answer.read())[1])
        place.stop()
        return count


class FluentBit(Rival):
    """HTTP input to a file."""

    key, name, durability = "fluent-bit", "Fluent Bit", MEMORY
    content_type = "application/json"

    def version(self):
        binary = program("fluent-bit")
        return first_line(binary, "--version") if binary else None

    def start(self, place):
        place.start([program("fluent-bit"), "-q", "-i", "http", "-p", "listen=127.0.0.1", "-p", f"port={place.port}",
                     "-p", "buffer_max_size=64M", "-t", "events", "-o", "file", "-p", f"path={place.home}", "-p", "file=events",
                     "-p", "format=plain", "-m", "*", "-f", "1"])

    def stored(self, place):
        return lines_in([path for path in [place.home / "events"] if path.exists()])


class Vector(Rival):
    """HTTP source to a file, with end-to-end acknowledgements: it answers when the file sink has written."""

    key, name, durability = "vector", "Vector", PAGE_CACHE

    def version(self):
        binary = program("vector")
        return first_line(binary, "--version") if binary else None

    def start(self, place):
        configuration = place.file("vector.toml", f"""data_dir = "{place.home}"
[sources.events]
type = "http_server"
address = "127.0.0.1:{place.port}"
path = "/v1/events"
framing.method = "newline_delimited"
decoding.codec = "json"
[sinks.file]
type = "file"
inputs = ["events"]
path = "{place.home}/events"
encoding.codec = "json"
acknowledgements.enabled = true
""")
        place.start([program("vector"), "--quiet", "--threads", 1, "--config", configuration])

    def stored(self, place):
        return lines_in([path for path in [place.home / "events"] if path.exists()])


def all_rivals(binaries):
    """Every rival there could be, in the order of the tables: by what an answer promises."""
    rivals = [Sink(binaries, "drop"), Sink(binaries, "answer"), Nginx(False)]
    rivals += [Tidegate(binaries, "memory"), Axum(binaries, "memory"), ClickHouse("buffer"), ClickHouse("async"),
               VictoriaLogs(), FluentBit()]
    rivals += [Tidegate(binaries, "written"), Axum(binaries, "written"), Nginx(True), ClickHouse("stripelog"),
               ClickHouse("mergetree"), Vector()]
    rivals += [Tidegate(binaries, "durable"), Axum(binaries, "synced"), ClickHouse("mergetree-fsync"),
               ClickHouse("async-fsync")]
    assert [rival.durability for rival in rivals] == sorted((r.durability for r in rivals), key=CLASSES.index)
    return rivals
