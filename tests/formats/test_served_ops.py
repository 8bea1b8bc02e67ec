import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from simcse_tf.errors import UserError
from simcse_tf.formats import served_ops


def write(directory, *nodes, functions=()):
    """A SavedModel that is no more than a graph with nodes `(op, attribute names)`."""
    model = saved_model_pb2.SavedModel()
    graph = model.meta_graphs.add().graph_def
    for name in functions:
        function = graph.library.function.add()
        function.signature.name = name
        function.attr["_XlaMustCompile"].b = name.startswith("xla")
    for op, attributes in nodes:
        node = graph.node.add(name=f"node{len(graph.node)}", op=op)
        for attribute in attributes:
            node.attr[attribute].b = True
    (directory / "saved_model.pb").write_bytes(model.SerializeToString())
    return directory


@pytest.mark.parametrize("target", ["2.19", "2.20"])
@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_the_exports_run_on_every_supported_server(exported_family, model_type, target):
    served_ops.check(exported_family(model_type) / "1", target)


def test_the_byte_level_tokenizer_is_served_without_state(exported_family):
    operations = served_ops.graph_operations(exported_family("roberta") / "1")
    assert not [op for op in operations if "HashTable" in op]


def test_the_table_knows_what_is_known_of_the_images():
    table = served_ops._table()
    for op in ("MatMul", "Erf", "While", "CaseFoldUTF8", "RegexSplitWithOffsets", "FastWordpieceTokenizeWithOffsets"):
        assert (op, "2.19") in table, op
        assert (op, "2.20") in table, op
    assert ("TFText>RoundRobinTrim", "2.20") in table
    assert ("TFText>RoundRobinTrim", "2.19") not in table
    assert not any(op.startswith(("Xla", "PyFunc")) for op, _ in table)
    assert served_ops.TABLE.stat().st_size < 100_000


def test_the_table_agrees_with_this_tensorflow_on_what_both_have():
    """TensorFlow never takes an attribute away from an operation."""
    from tensorflow.python.framework import op_def_registry

    for (op, target), attributes in served_ops._table().items():
        known = op_def_registry.get(op)
        if known is not None and target == served_ops.OLDEST:
            assert attributes <= {a.name for a in known.attr}, op


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (("TFText>RoundRobinTrim", ["N"]), r"'TFText>RoundRobinTrim', .*serving 2\.19 .*`target_serving` 2\.20 has it"),
        (("NewOp", []), r"the operation 'NewOp', .*No supported tensorflow/serving has it"),
        (("MatMul", ["T", "precision"]), "the attribute 'precision' of the operation 'MatMul'"),
        (("PyFunc", ["token"]), "the operation 'PyFunc'"),
        (("XlaLaunch", []), "the operation 'XlaLaunch'"),
    ],
)
def test_what_the_server_lacks_is_named(tmp_path, node, message):
    with pytest.raises(UserError, match=message):
        served_ops.check(write(tmp_path, ("MatMul", ["T"]), node), "2.19")


def test_calls_and_hints_are_no_operations(tmp_path):
    served_ops.check(
        write(tmp_path, ("my_function", []), ("MatMul", ["_output_shapes"]), functions=["my_function"]), "2.19"
    )


def test_a_function_that_only_xla_can_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="'xla_part' must be compiled by XLA"):
        served_ops.check(write(tmp_path, functions=["xla_part"]), "2.19")


def test_jit_compile_is_what_that_is_about(tmp_path):
    module = tf.Module()
    inner = tf.function(lambda x: x + 1, jit_compile=True)
    module.f = tf.function(lambda x: inner(x), input_signature=[tf.TensorSpec([None])])
    tf.saved_model.save(module, str(tmp_path))
    with pytest.raises(UserError, match="must be compiled by XLA"):
        served_ops.check(tmp_path, "2.20")
