"""ONNX files of families of encoders: the same logits for any batch and length."""

import numpy as np
import pytest
import torch
from families import FAMILIES, build, load

from training import models, onnx_models
from utils.cli import UserError

TEXTS = ["good", "a film like no other", "the plot was very bad and the actor was quite sad"]
LONG = " ".join(["good bad film"] * 25)
BATCHES = [TEXTS, ["sad"], [LONG] * 5, ["very good", LONG]]


def batch_of(tokenizer, texts: list[str]) -> dict[str, np.ndarray]:
    encoded = tokenizer(texts, padding=True, return_tensors="np")
    names = [name for name in tokenizer.model_input_names if name in encoded]
    return {name: encoded[name].astype(np.int64) for name in names}


def tensors(batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in batch.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GPT-2"])  # padding on the left, fused matrices
def test_logits_for_other_batches_than_the_example(name, tmp_path):
    for package in onnx_models.PACKAGES:
        pytest.importorskip(package)
    model, tokenizer = load(build(FAMILIES[name], tmp_path / "encoder"))
    example = tensors(batch_of(tokenizer, TEXTS))
    onnx_models.write_onnx(model, example, tmp_path / "fp32.onnx")
    onnx_models.quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    exact, quantized = (
        onnx_models.load_onnx(tmp_path / f"{name}.onnx", threads=1) for name in ("fp32", "int8")
    )
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "fp32.onnx",
        "int8.onnx",
    ]
    for texts in BATCHES:
        batch = batch_of(tokenizer, texts)
        with torch.no_grad():
            expected = model(**tensors(batch)).logits.numpy()
        np.testing.assert_allclose(exact(batch), expected, atol=1e-5)
        off = np.abs(quantized(batch) - expected).max()
        assert 1e-5 < off < 0.5 * np.abs(expected).max()
    classifier = onnx_models.OnnxClassifier(tmp_path / "int8.onnx", model.config, True)
    alone = [classifier(**tensors(batch_of(tokenizer, [text]))).logits for text in TEXTS]
    among = classifier(**tensors(batch_of(tokenizer, TEXTS))).logits
    assert torch.equal(among, torch.cat(alone))  # the padding lies on the left


def test_a_file_has_the_positions_and_the_vocabulary_of_its_encoder(tmp_path, monkeypatch):
    model, _ = load(build(FAMILIES["RoBERTa"], tmp_path / "encoder"))
    monkeypatch.setattr(onnx_models, "load_onnx", lambda path, threads: None)
    classifier = onnx_models.OnnxClassifier(tmp_path / "model.onnx", model.config, False)
    models.check_length(classifier, 131)  # of 132, the id of padding is one
    with pytest.raises(UserError, match="has 131 positions"):
        models.check_length(classifier, 132)
    rows = model.get_input_embeddings().num_embeddings
    assert classifier.get_input_embeddings().num_embeddings == rows


def test_what_the_exporter_cannot_translate_is_one_line(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise torch.onnx.errors.OnnxExporterError("step 1/3\nfailed") from ValueError("a\nreason")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(UserError, match=r"export Linear to ONNX \(a reason\); use --to safetensor"):
        onnx_models.write_onnx(torch.nn.Linear(2, 2), {}, tmp_path / "model.onnx")
