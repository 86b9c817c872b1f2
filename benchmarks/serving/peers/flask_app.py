"""Flask and PyTorch: the script that most image classifiers on the web are served by.

After PyTorch's tutorial "Deploying PyTorch in Python via a REST API with Flask" (pytorch.org/tutorials, by
A. Sajjanshetty): a form's ``file`` is opened by Pillow, resized, normalised and given to a model that was loaded once.
Run as the tutorial does, ``flask --app flask_app run``, each connection has a thread of its own; behind gunicorn
(``gunicorn flask_app:app``) it is what Flask's documentation says to deploy.
"""

import network
from flask import Flask, jsonify, request

app = Flask(__name__)


@app.post("/predict")
def predict():
    tensor = network.read(request.files["file"].read())
    return jsonify(network.answer(network.probabilities(tensor[None])[0]))
