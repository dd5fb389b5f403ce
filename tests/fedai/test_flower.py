from __future__ import annotations

import json
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from replies_to import reply_to, task_of

from fedai import wire
from fedai.errors import RefusedByPolicy
from fedai.flower import (
    MESSAGE_TYPES,
    PACKED,
    check_objects,
    check_opened_size,
    pulled_within,
    read_reply,
    read_task,
    reply_record,
    task_record,
)

KINDS = tuple(wire.REPLY_OF)


def same_arrays(one: wire.Arrays, other: wire.Arrays) -> bool:
    return set(one) == set(other) and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one
    )


def sent(record: RecordDict) -> RecordDict:
    """The record as it comes out at the other side."""
    return recorddict_from_proto(recorddict_to_proto(record))


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_and_its_reply_arrive_as_they_were_sent(kind: wire.TaskKind) -> None:
    task = task_of(kind)
    reply = reply_to(task)
    arrived, answer = read_task(sent(task_record(task))), read_reply(sent(reply_record(reply)))
    assert same_arrays(arrived.arrays, task.arrays)
    assert same_arrays(answer.arrays, reply.arrays)
    assert {**vars(arrived), "arrays": 0} == {**vars(task), "arrays": 0}
    assert {**vars(answer), "arrays": 0} == {**vars(reply), "arrays": 0}
    assert [type(value) for value in answer.metrics.values()] == [type(v) for v in reply.metrics.values()]


def objects_of(record: RecordDict) -> dict[str, bytes]:
    """The record's objects as they lie on the wire."""
    with no_object_id_recompute():
        return {key: part.deflate() for key, part in get_all_nested_objects(record).items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_messages_opened_size_is_that_of_its_arrays(kind: wire.TaskKind) -> None:
    record = task_record(task_of(kind))
    data = sum(len(array.data) for array in record.array_records["arrays"].values())
    assert data == sum(array.nbytes for array in task_of(kind).arrays.values())
    objects = objects_of(record)
    check_opened_size(objects, data)
    if data:
        with pytest.raises(RefusedByPolicy, match="once opened"):
            check_opened_size(objects, data - 1)


def test_a_chunk_or_an_array_named_often_counts_as_often() -> None:
    chunk, array = b"ArrayChunk  100\0" + b"x" * 100, b'Array c 9\0{"arraychunk_ids": [0, 0, 0]}'
    names = json.dumps({f"n{number}": "a" for number in range(5)}).encode()
    objects = {"c": chunk, "a": array, "r": b"ArrayRecord a 9\0" + names}
    check_opened_size(objects, 5 * 3 * 100)
    with pytest.raises(RefusedByPolicy, match="1,500 bytes once opened"):
        check_opened_size(objects, 5 * 3 * 100 - 1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Array",
        b"Array  9",
        b"Array\0",
        b"\xff\xff 1\0",
        b"Array  2\0{}",
        b"Array  2\0[]",
        b"Array  2\0nonsense",
        b'Array  9\0{"arraychunk_ids": [0]}',
        b'Array gone 9\0{"arraychunk_ids": [0]}',
        b'Array  9\0{"arraychunk_ids": 7}',
        b"ArrayRecord  9\0[1]",
        b"Array  9\0" + b"[" * 100_000,
    ],
)
def test_objects_that_are_not_flowers_are_refused(content: bytes) -> None:
    with pytest.raises(RefusedByPolicy, match="not Flower's"):
        check_opened_size({"a": content}, 10**9)


def test_every_kind_of_task_has_a_type_of_message() -> None:
    assert set(MESSAGE_TYPES) == set(wire.REPLY_OF)
    assert set(MESSAGE_TYPES.values()) <= {"train", "evaluate", "query"}


def with_head(record: RecordDict, name: str, head: Any) -> RecordDict:
    text = head if isinstance(head, str) else json.dumps(head)
    return RecordDict({**record, name: ConfigRecord({"head": text})})


TASK = {
    "kind": "ready", "study": "s", "run": "r-1", "round": 0, "model": "", "models": [], "layout": "",
    "arrays": [],
}  # fmt: skip


@pytest.mark.parametrize(
    "head",
    [
        "",
        "no json",
        "[]",
        "7",
        "null",
        "[" * 100_000,
        {},
        {**TASK, "more": 1},
        {**TASK, "arrays": {}},
        {key: value for key, value in TASK.items() if key != "models"},
        {key: value for key, value in TASK.items() if key != "arrays"},
        {**TASK, "models": 7},
        {**TASK, "models": [[]]},
        {**TASK, "models": ["../x"]},
        {**TASK, "model": "../../keys/agent"},
        {**TASK, "model": None},
        {**TASK, "kind": "../../x"},
        {**TASK, "kind": ["train"]},
        {**TASK, "kind": "delete"},
        {**TASK, "run": "../other"},
        {**TASK, "run": ""},
        {**TASK, "run": None},
        {**TASK, "round": "1"},
        {**TASK, "round": True},
        {**TASK, "round": 1.0},
        {**TASK, "study": 7},
        {**TASK, "layout": {}},
    ],
)
def test_odd_words_of_a_task_are_refused_before_anything_is_made_of_them(head: Any) -> None:
    record = task_record(task_of("ready"))
    assert read_task(with_head(record, "task", TASK)).kind == "ready"
    with pytest.raises(RefusedByPolicy):
        read_task(with_head(record, "task", head))


@pytest.mark.parametrize("head", ["", "[]", "null", "[" * 100_000, {}, {"kind": "status", "metrics": {}}])
def test_a_reply_without_its_words_is_refused(head: Any) -> None:
    with pytest.raises(RefusedByPolicy, match="is not a reply"):
        read_reply(with_head(reply_record(reply_to(task_of("ready"))), "reply", head))


@pytest.mark.parametrize("odd", [None, [], "", 7])
@pytest.mark.parametrize("name", ["metrics", "words"])
def test_metrics_and_words_that_have_no_names_are_refused(name: str, odd: Any) -> None:
    record = reply_record(reply_to(task_of("ready")))
    head = json.loads(str(record["reply"]["head"]))  # type: ignore[index]
    with pytest.raises(RefusedByPolicy, match="is not a reply"):
        read_reply(with_head(record, "reply", {**head, name: odd}))


def test_a_record_too_many_too_few_or_of_another_kind_is_refused() -> None:
    for record, read in (
        (task_record(task_of("ready")), read_task),
        (reply_record(reply_to(task_of("ready"))), read_reply),
    ):
        others = [RecordDict({**record, "notes": ConfigRecord({"patient": "Hong^Gildong"})})]
        others += [RecordDict({name: record[name] for name in record if name != left}) for left in record]
        others += [RecordDict({**record, "arrays": MetricRecord({})})]
        for other in others:
            with pytest.raises(RefusedByPolicy, match="other records"):
                read(other)


@pytest.mark.parametrize("name", ["task", "reply"])
def test_a_key_beside_the_head_is_refused(name: str) -> None:
    task = task_of("ready")
    record = task_record(task) if name == "task" else reply_record(reply_to(task))
    record[name]["note"] = "Hong^Gildong"  # type: ignore[index]
    with pytest.raises(RefusedByPolicy):
        (read_task if name == "task" else read_reply)(record)


def packed(data: bytes) -> ArrayRecord:
    return ArrayRecord({PACKED: Array("uint8", (len(data),), PACKED, data)})


def with_arrays(record: RecordDict, name: str, given: Any, arrays: ArrayRecord) -> RecordDict:
    head = {**json.loads(str(record[name]["head"])), "arrays": given}  # type: ignore[index]
    return RecordDict({name: ConfigRecord({"head": json.dumps(head)}), "arrays": arrays})


SOUND = [["x", "float32", [2]], ["y", "uint8", [2, 1]]]


@pytest.mark.parametrize(
    ("given", "data"),
    [
        ([], bytes(10)),
        (None, bytes(10)),
        (7, bytes(10)),
        ({"x": "float32"}, bytes(10)),
        ([["x", "float32"]], bytes(8)),
        ([["x", "float32", [2], 1]], bytes(8)),
        ([["x", "float32", 2]], bytes(8)),
        ([["x", "float32", [2]]], bytes(9)),
        ([["x", "float32", [2]]], bytes(7)),
        ([["x", "float32", [2]]], b""),
        ([["x", "float32", [-2]]], bytes(8)),
        ([["x", "float32", [-1, -2]]], bytes(8)),
        ([["x", "float32", [True, 2]]], bytes(8)),
        ([["x", "float32", [2.0]]], bytes(8)),
        ([["x", "float32", ["2"]]], bytes(8)),
        ([["x", "float32", [1 << 62, 0]]], bytes(8)),
        ([["x", "float32", [1] * 100]], bytes(4)),
        ([["x", "float32", [1]], ["x", "float32", [1]]], bytes(8)),
        ([[7, "float32", [2]]], bytes(8)),
        ([[None, "float32", [2]]], bytes(8)),
        ([[["x"], "float32", [2]]], bytes(8)),
        ([["x", "object", [1]]], bytes(8)),
        ([["x", "O", [1]]], bytes(8)),
        ([["x", "V8", [1]]], bytes(8)),
        ([["x", "S8", [1]]], bytes(8)),
        ([["x", "<U2", [1]]], bytes(8)),
        ([["x", "datetime64[s]", [1]]], bytes(8)),
        ([["x", "complex64", [1]]], bytes(8)),
        ([["x", "f4", [2]]], bytes(8)),
        ([["x", "i4,i4", [1]]], bytes(8)),
        ([["x", None, [1]]], bytes(8)),
        ([["x", 7, [1]]], bytes(8)),
        ([["x", ["float32"], [2]]], bytes(8)),
        ([["x", {"names": ["a"], "formats": ["O"]}, [1]]], bytes(8)),
        ([["x", "__import__('os').system('ls')", [1]]], bytes(8)),
    ],
)
@pytest.mark.parametrize("name", ["task", "reply"])
def test_bytes_that_are_not_the_arrays_told_of_are_refused(name: str, given: Any, data: bytes) -> None:
    task = task_of("ready")
    record = task_record(task) if name == "task" else reply_record(reply_to(task))
    read: Any = read_task if name == "task" else read_reply
    assert [*read(with_arrays(record, name, SOUND, packed(bytes(10)))).arrays] == ["x", "y"]
    with pytest.raises(RefusedByPolicy):
        read(with_arrays(record, name, given, packed(data)))


def test_a_second_array_beside_the_packed_one_is_refused() -> None:
    record = reply_record(reply_to(task_of("ready")))
    more = ArrayRecord({**packed(bytes(10)), "notes": Array(np.zeros(3, np.uint8))})
    with pytest.raises(RefusedByPolicy):
        read_reply(with_arrays(record, "reply", SOUND, more))
    other = ArrayRecord({"parameters": packed(bytes(10))[PACKED]})
    with pytest.raises(RefusedByPolicy):
        read_reply(with_arrays(record, "reply", SOUND, other))


@pytest.mark.parametrize("array", [np.array([object()]), np.array(["Hong"]), np.zeros(1, "i4,i4")])
def test_what_is_not_numbers_is_not_even_packed(array: Any) -> None:
    with pytest.raises(TypeError):
        task_record(task_of("ready", arrays={"x": array}))


NUMPYS = st.sampled_from(["bool", "uint8", "int8", "uint32", "int64", "float16", "float32", "float64"])


@given(st.dictionaries(st.text(max_size=5), arrays(NUMPYS, array_shapes(min_dims=0, min_side=0))))
@settings(max_examples=60)
def test_any_numbers_arrive_as_they_were(given_arrays: dict[str, Any]) -> None:
    arrived = read_task(sent(task_record(task_of("ready", arrays=given_arrays)))).arrays
    assert [*arrived] == [*given_arrays]
    for name, array in given_arrays.items():
        assert (arrived[name].dtype, arrived[name].shape) == (array.dtype, array.shape)
        assert arrived[name].tobytes() == array.tobytes()
        assert arrived[name].flags.writeable


def test_numbers_of_the_other_byte_order_are_not_packed_and_not_read() -> None:
    with pytest.raises(TypeError):
        task_record(task_of("ready", arrays={"x": np.array([1.5, -2], ">f4")}))
    record = task_record(task_of("ready", arrays={"x": np.array([1.5, -2], "<f4")}))
    text = str(cast(ConfigRecord, record["task"])["head"])
    record["task"] = ConfigRecord({"head": text.replace("float32", ">f4")})
    with pytest.raises(RefusedByPolicy):
        read_task(record)


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_is_few_objects_whatever_it_holds(kind: wire.TaskKind) -> None:
    """Each costs the SuperLink a call and several statements."""
    task = task_of(kind)
    assert len(objects_of(task_record(task))) <= 5
    assert len(objects_of(reply_record(reply_to(task)))) <= 5


def test_arrays_keep_their_values_where_they_do_not_lie_in_a_row() -> None:
    turned = np.arange(12, dtype=np.int64).reshape(3, 4).T
    record = task_record(task_of("ready", arrays={"x": turned}))
    assert np.array_equal(read_task(sent(record)).arrays["x"], turned)


LIMIT = 1_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_the_objects_of_every_task_and_reply_may_be_put_together(kind: wire.TaskKind) -> None:
    task = task_of(kind)
    check_objects(objects_of(task_record(task)), LIMIT)
    check_objects(objects_of(reply_record(reply_to(task))), LIMIT)


def test_an_array_that_flower_made_and_that_names_one_piece_many_times_counts_as_often() -> None:
    objects = objects_of(RecordDict({"arrays": ArrayRecord({"x": Array(np.zeros(500_000, np.uint8))})}))
    check_objects(objects, LIMIT)
    bomb = {
        key: content.replace(b": [0]", b": [%s]" % b", ".join([b"0"] * 300))
        for key, content in objects.items()
    }
    assert bomb != objects
    with pytest.raises(RefusedByPolicy, match="bytes once opened"):
        check_objects(bomb, LIMIT)


def test_too_many_objects_or_words_are_refused() -> None:
    with pytest.raises(RefusedByPolicy, match="more parts"):
        check_objects({str(n): b"ArrayChunk  1\0x" for n in range(3000)}, LIMIT)
    with pytest.raises(RefusedByPolicy, match="more parts"):
        check_objects({"a": b"ConfigRecord  2\0" + bytes(3_000_000)}, 10**9)


def test_pulling_ends_where_a_message_is_larger_than_allowed() -> None:
    pull = pulled_within(lambda _: bytes(1_000_000), LIMIT)
    assert [len(pull(key)) for key in ("a", "b", "b", "c")] == [1_000_000] * 4
    with pytest.raises(RefusedByPolicy, match="larger than the 1,000,000 bytes"):
        pull("d")


def test_flower_writes_objects_as_we_read_them() -> None:
    """Flower's own words for a head and its divider; a red test means: Flower moved."""
    from flwr.supercore.constant import HEAD_BODY_DIVIDER, HEAD_VALUE_DIVIDER
    from flwr.supercore.inflatable.inflatable_object import get_object_head_values_from_object_content

    assert (HEAD_BODY_DIVIDER, HEAD_VALUE_DIVIDER) == (b"\0", " ")
    heads = [
        get_object_head_values_from_object_content(c)
        for c in objects_of(task_record(task_of("train"))).values()
    ]
    assert {kind for kind, _, _ in heads} == {
        "ArrayChunk",
        "Array",
        "ArrayRecord",
        "ConfigRecord",
        "RecordDict",
    }
