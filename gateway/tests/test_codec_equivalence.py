"""The compiled codecs against a slow and straightforward reading of the same rules, over random messages."""

import base64
import datetime
import json
from typing import Any

import orjson
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp
from headrace.common.v1 import options_pb2
from headrace.execution.v1 import runs_pb2, workers_pb2
from headrace.metadata.v1 import connections_pb2, pipelines_pb2
from headrace_gateway.codec.compile_decode import DecoderCompiler
from headrace_gateway.codec.compile_encode import EncoderCompiler
from headrace_gateway.codec.findings import Findings
from hypothesis import given, settings
from hypothesis import strategies as st

TYPES = [
    runs_pb2.RunStatusResponse,
    runs_pb2.ListRunsResponse,
    pipelines_pb2.Pipeline,
    pipelines_pb2.ValidatePipelineResponse,
    connections_pb2.ListConnectionTablesResponse,
    workers_pb2.ConnectRequest,
    workers_pb2.Assignment,
]
BOUNDS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INSTANTS = st.datetimes(timezones=st.just(datetime.UTC))
JSON_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)

encoders = EncoderCompiler()
decoders = DecoderCompiler()


def oracle(message: Any) -> Any:
    """Returns what a message is in JSON, by the rules and nothing else."""
    if isinstance(message, Timestamp):
        return message.ToDatetime().isoformat() + "Z"
    written: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.has_presence and not message.HasField(field.name):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            item = field.message_type.fields_by_name["value"]
            written[field.json_name] = {key: single(item, value[key]) for key in value}
        elif field.is_repeated:
            written[field.json_name] = [single(field, item) for item in value]
        elif not value and not field.has_presence and (field.enum_type is not None or rules(field).json):
            continue
        else:
            written[field.json_name] = single(field, value)
    return written


def single(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return oracle(value)
    if field.enum_type is not None:
        return bare(field.enum_type.values_by_number[value].name, field.enum_type.name)
    if rules(field).json:
        return json.loads(value)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def bare(name: str, enum: str) -> str:
    prefix = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in enum).strip("_")
    return name.removeprefix(f"{prefix}_")


def rules(field: FieldDescriptor) -> Any:
    return field.GetOptions().Extensions[options_pb2.field]


@st.composite
def messages(draw: st.DrawFn, message_type: Any, depth: int = 0) -> Any:
    """Draws a message with any of its fields set."""
    message = message_type()
    for field in message_type.DESCRIPTOR.fields:
        if draw(st.booleans()) or (field.message_type is not None and depth > 2):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            item = field.message_type.fields_by_name["value"]
            for key in draw(st.lists(TEXT, max_size=3)):
                getattr(message, field.name)[key] = draw(scalars(item))
        elif field.is_repeated:
            for _ in range(draw(st.integers(0, 2))):
                target = getattr(message, field.name)
                if field.message_type is None:
                    target.append(draw(scalars(field)))
                else:
                    target.add().CopyFrom(draw(inner(field.message_type, depth)))
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(draw(inner(field.message_type, depth)))
            getattr(message, field.name).SetInParent()
        else:
            setattr(message, field.name, draw(scalars(field)))
    return message


def inner(descriptor: Descriptor, depth: int) -> st.SearchStrategy[Any]:
    if descriptor.full_name == "google.protobuf.Timestamp":
        return INSTANTS.map(instant)
    return messages(message_factory.GetMessageClass(descriptor), depth + 1)


def instant(moment: datetime.datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values if value.number])
    if rules(field).json:
        return JSON_VALUES.map(orjson_dumps)
    return {
        FieldDescriptor.TYPE_STRING: TEXT,
        FieldDescriptor.TYPE_BYTES: st.binary(max_size=10),
        FieldDescriptor.TYPE_BOOL: st.booleans(),
        FieldDescriptor.TYPE_INT32: st.integers(*BOUNDS["int32"]),
        FieldDescriptor.TYPE_INT64: st.integers(*BOUNDS["int64"]),
    }[field.type]


def orjson_dumps(value: Any) -> bytes:
    return orjson.dumps(value)


def test_secrets_are_never_written() -> None:
    request = connections_pb2.CreateConnectionRequest(name="n", secret="hunter2")

    assert b"hunter2" not in encoders.encoder(request.DESCRIPTOR)(request)


ANY_MESSAGE = st.sampled_from(TYPES).flatmap(messages)


@given(ANY_MESSAGE)
@settings(max_examples=150, deadline=None)
def test_encoding_follows_the_rules(message: Any) -> None:
    written = encoders.encoder(message.DESCRIPTOR)(message)

    assert json.loads(written) == oracle(message)


@given(ANY_MESSAGE)
@settings(max_examples=150, deadline=None)
def test_decoding_reads_what_encoding_wrote(message: Any) -> None:
    written = encoders.encoder(message.DESCRIPTOR)(message)

    read, found = type(message)(), Findings()
    decoders.decoder(message.DESCRIPTOR)(orjson.loads(written), read, "", found)

    assert found.problems == []
    assert read == message


@given(st.sampled_from(TYPES), st.data())
@settings(max_examples=150, deadline=None)
def test_decoding_anything_never_raises(message_type: Any, data: st.DataObject) -> None:
    names = [field.json_name for field in message_type.DESCRIPTOR.fields]
    value = data.draw(st.dictionaries(st.sampled_from(names), JSON_VALUES) | JSON_VALUES)
    read, found = message_type(), Findings()

    decoders.decoder(message_type.DESCRIPTOR)(value, read, "", found)

    assert found.problems or isinstance(value, dict)


@given(st.sampled_from(TYPES), st.data())
@settings(max_examples=150, deadline=None)
def test_a_value_of_another_type_is_refused_at_its_place(message_type: Any, data: st.DataObject) -> None:
    fields = [field for field in message_type.DESCRIPTOR.fields if not rules(field).json]
    field = data.draw(st.sampled_from(fields))
    wrong = data.draw(st.sampled_from([[[]], {"x": [[]]}] if field.is_repeated else [[[]]]))

    found = Findings()
    decoders.decoder(message_type.DESCRIPTOR)({field.json_name: wrong}, message_type(), "", found)

    assert found.problems
    assert all(problem.path.startswith(field.json_name) for problem in found.problems)
