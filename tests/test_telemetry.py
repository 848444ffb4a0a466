from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from mallard.telemetry import OTHER_SITES, SITES_MAX, Latency, Telemetry


def samples(telemetry: Telemetry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(telemetry.text().decode())
        for sample in family.samples
    }


def test_the_text_is_prometheus_and_says_what_was_counted() -> None:
    telemetry = Telemetry()
    telemetry.accepted["post"] += 3
    telemetry.refused["invalid_input"] += 2
    telemetry.failures["flush"] += 1
    telemetry.drop('we"ird\n.example', "bot")
    telemetry.gauge("mallard_ring_events", "Held.", lambda: 7)
    telemetry.append_seconds.observe(0.003)
    found = samples(telemetry)
    assert found["mallard_events_accepted_total", (("door", "post"),)] == 3
    assert found["mallard_events_accepted_total", (("door", "pixel"),)] == 0  # there from the start
    assert found["mallard_requests_refused_total", (("reason", "invalid_input"),)] == 2
    assert found["mallard_failures_total", (("operation", "flush"),)] == 1
    labels = (("reason", "bot"), ("site", 'we"ird\n.example'))
    assert found["mallard_events_dropped_total", labels] == 1
    assert found["mallard_ring_events", ()] == 7
    assert found["mallard_append_seconds_bucket", (("le", "0.0025"),)] == 0
    assert found["mallard_append_seconds_bucket", (("le", "0.005"),)] == 1
    assert found["mallard_append_seconds_count", ()] == 1


def test_buckets_are_cumulative_a_bound_counts_as_inside_and_the_last_has_them_all() -> None:
    latency = Latency()
    for seconds in (0.0001, 0.0002, 60.0):
        latency.observe(seconds)
    buckets, total = latency.buckets()
    assert buckets[0] == ("0.0001", 1)
    assert buckets[1] == ("0.0005", 2)
    assert buckets[-2:] == [("5.0", 2), ("+Inf", 3)]
    assert total == 60.0003


def test_strangers_who_invent_sites_share_one_label_once_there_are_many() -> None:
    telemetry = Telemetry()
    for number in range(SITES_MAX + 50):
        telemetry.drop(f"{number}.example", "bot")
    telemetry.drop("0.example", "bot")
    assert len({site for site, _ in telemetry.dropped}) == SITES_MAX + 1
    assert telemetry.dropped[OTHER_SITES, "bot"] == 50
    assert telemetry.dropped["0.example", "bot"] == 2
    assert sum(telemetry.dropped.values()) == SITES_MAX + 51  # nothing is lost from the sum


def test_a_number_that_cannot_be_read_is_left_out_and_the_others_stay() -> None:
    telemetry = Telemetry()

    def fail() -> float:
        raise OSError(5, "Input/output error")

    telemetry.gauge("mallard_disk_free_bytes", "Free.", fail)
    telemetry.gauge("mallard_parts", "Parts.", lambda: 3)
    found = samples(telemetry)
    assert found["mallard_parts", ()] == 3
    assert ("mallard_disk_free_bytes", ()) not in found
