"""BentoML: ``bentoml serve bentoml_app:Classifier``.

After BentoML's documentation: a service class that loads its model once, a picture as input (Input and output types),
a worker for each core (Parallelize requests handling), each of which takes several requests at a time (``threads``).
PyTorch computes on one thread in each, as the workers share the cores.
"""

import bentoml
import torch
from PIL.Image import Image


@bentoml.service(workers="cpu_count", threads=4, traffic={"timeout": 60})
class Classifier:
    def __init__(self) -> None:
        torch.set_num_threads(1)
        import network

        self.network = network

    @bentoml.api
    def predict(self, file: Image) -> dict:
        tensor = self.network.to_tensor(file)
        return self.network.answer(self.network.probabilities(tensor[None])[0])
