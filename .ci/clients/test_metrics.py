"""`GET /metrics`, as the parser of Prometheus's own library reads the classic format."""

import itertools
import urllib.error
import urllib.request

import pytest
from conftest import PROMPT_TOKENS, STORY_TOKENS, connect
from prometheus_client.parser import text_string_to_metric_families
from servers import Server

# Families of each prefix, as the parser names them: counters without `_total`.
GAUGES = ["requests_running", "requests_waiting", "kv_cache_usage_ratio", "cache_config_info"]
COUNTERS = [
    *["prompt_tokens", "generation_tokens", "requests"],
    *["prefix_cache_queries", "prefix_cache_hits", "preemptions", "drafted_tokens", "accepted_tokens"],
]
HISTOGRAMS = [
    *["time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds"],
    *["request_queue_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds"],
]
# What vLLM calls some of them.
VLLM = {
    "requests": "request_success",
    "requests_running": "num_requests_running",
    "requests_waiting": "num_requests_waiting",
    "kv_cache_usage_ratio": "kv_cache_usage_perc",
    "preemptions": "num_preemptions",
    "drafted_tokens": "spec_decode_num_draft_tokens",
    "accepted_tokens": "spec_decode_num_accepted_tokens",
}
# What only one of the two has.
OURS = {
    "gauge": {
        *["bitnet_device_requests_running", "bitnet_device_requests_waiting"],
        *["bitnet_device_kv_cache_usage_ratio", "bitnet_device_failed"],
    },
    "counter": {
        *["bitnet_http_responses", "bitnet_device_generation_tokens", "bitnet_device_copied_tokens"],
    },
}
THEIRS = {"gauge": {"vllm:lora_requests_info"}}


@pytest.fixture(scope="module", params=[[], ["--metrics-compat", "vllm"]], ids=["ours", "vllm"])
def fresh(request):
    """A server that nobody has asked anything yet, and the prefixes of its families."""
    with Server(*request.param, "--alias", 'a "model"\\of\\ours') as server:
        yield server, ["bitnet_", "vllm:"] if request.param else ["bitnet_"]


def named(name, prefix):
    return prefix + (VLLM.get(name, name) if prefix == "vllm:" else name)


def test_all_families_are_there_from_the_start(fresh):
    server, prefixes = fresh
    families = server.families()
    for kind, names in [("gauge", GAUGES), ("counter", COUNTERS), ("histogram", HISTOGRAMS)]:
        expected = {named(name, prefix) for name in names for prefix in prefixes} | OURS.get(kind, set())
        if "vllm:" in prefixes:
            expected |= THEIRS.get(kind, set())
        assert {name for name, family in families.items() if family.type == kind} == expected
    for name, family in families.items():
        assert family.documentation and family.samples
        for sample in family.samples:
            assert sample.labels["model_name"] == 'a "model"\\of\\ours'
            assert sample.value == 0 or name.endswith("info") or name in OURS["counter"], sample
    for prefix in prefixes:
        ends = families[named("requests", prefix)].samples
        assert len(ends) == len({end.labels["finished_reason"] for end in ends}) == 4
        (info,) = families[prefix + "cache_config_info"].samples
        assert info.labels["block_size"] == "16" and int(info.labels["num_gpu_blocks"]) > 0 and info.value == 1


def test_figures_are_those_of_what_was_asked(fresh):
    server, prefixes = fresh
    client = connect(server)
    story = dict(model="any", prompt="Once upon a time", temperature=0, max_tokens=STORY_TOKENS)
    for _ in range(3):
        client.completions.create(**story)
    server.until_idle()
    for prefix in prefixes:
        assert server.figure(prefix + "prompt_tokens") == 3 * PROMPT_TOKENS
        assert server.figure(prefix + "generation_tokens") == 3 * STORY_TOKENS
        assert server.figure(named("requests", prefix), finished_reason="length") == 3
        families = server.families()
        for name in HISTOGRAMS:
            check_histogram(families[prefix + name], 3 * (STORY_TOKENS - 1) if "inter_token" in name else 3)


def check_histogram(family, count):
    """That buckets are cumulative, in order, and end with all."""
    of = lambda suffix: [sample for sample in family.samples if sample.name == family.name + suffix]
    (total,), (seconds,) = of("_count"), of("_sum")
    buckets = of("_bucket")
    ends = [float(bucket.labels["le"]) for bucket in buckets]
    assert ends == sorted(set(ends)) and ends[-1] == float("inf")
    assert all(one.value <= next.value for one, next in itertools.pairwise(buckets))
    assert buckets[-1].value == total.value == count, family.name
    assert seconds.value > 0


def test_the_page_is_of_the_classic_format(fresh):
    """One content type, whatever is accepted; each family once, with its help and its type before it."""
    server, _ = fresh
    newer = {"Accept": "application/openmetrics-text; version=1.0.0, text/plain;q=0.5"}
    with urllib.request.urlopen(urllib.request.Request(server.url + "/metrics", headers=newer)) as response:
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = response.read().decode()
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names))
    heads = [line.split()[1] for line in text.splitlines() if line.startswith("# ")]
    assert heads == ["HELP", "TYPE"] * (len(heads) // 2) and text.endswith("\n") and "# EOF" not in text


def test_usage_of_the_cache(tireless):
    """Keys and values of a text that goes on are in use; between 0 and 1."""
    fields = dict(model="any", prompt="a", max_tokens=90_000)
    with connect(tireless).completions.create(**fields, stream=True) as stream:
        next(iter(stream))
        assert 0 < tireless.figure("bitnet_kv_cache_usage_ratio") < 1
    tireless.until_idle()


def test_figures_can_be_protected():
    with Server("--api-key", "sesame", "--protect-metrics") as server:
        with pytest.raises(urllib.error.HTTPError) as error:
            server.families()
        assert error.value.code == 401
