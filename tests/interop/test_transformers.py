import numpy as np
import pytest
import torch
import transformers

from simcse_tf.config import EncoderConfig
from simcse_tf.formats import presets
from simcse_tf.formats.encoders import load_encoder
from tests.formats import hugging_face_directories
from tests.formats.test_huggingface import IDS, MASK, hidden

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("model_type", hugging_face_directories.PREFIXES)
def test_embeddings_equal_transformers(tmp_path, model_type):
    directory = hugging_face_directories.write(tmp_path, model_type)
    encoder = load_encoder(presets.locate(str(directory)), EncoderConfig("avg", "none"))
    model = transformers.AutoModel.from_pretrained(directory).eval()
    with torch.no_grad():
        theirs = model(torch.tensor(IDS), attention_mask=torch.tensor(MASK)).last_hidden_state.numpy()
    # keras-hub's BERT and ELECTRA use the tanh GELU, Hugging Face the exact one.
    np.testing.assert_allclose(hidden(encoder.backbone), theirs * MASK[:, :, None], atol=5e-3)
