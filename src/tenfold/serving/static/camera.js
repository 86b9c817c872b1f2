// The camera: on, off, and a frame as a file.

import { by } from "./make.js";

const WANTED = { audio: false, video: { facingMode: { ideal: "environment" }, width: { ideal: 960 } } };
const SAID = {
  NotAllowedError: "The camera was not allowed. The browser's settings for this page say whether it is.",
  NotFoundError: "This device has no camera.",
  NotReadableError: "The camera is busy: another program has it.",
};

const video = by("video");
let stream = null;

// Browsers give it to pages that came over https, and to those of this very machine.
export const there = () => Boolean(navigator.mediaDevices?.getUserMedia);

export const on = () => stream !== null;

// Raises an Error whose message is for people. `ended` is called where the camera goes away by itself.
export async function start(ended) {
  try {
    stream = await navigator.mediaDevices.getUserMedia(WANTED);
  } catch (error) {
    throw new Error(SAID[error.name] ?? `The camera can't be used: ${error.message}`);
  }
  stream.getVideoTracks()[0].addEventListener("ended", ended);
  video.srcObject = stream;
  await video.play();
  return [video.videoWidth, video.videoHeight];
}

export function stop() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  video.srcObject = null;
}

// What the camera shows now, as a JPEG; null where it is off by then.
export function frame() {
  if (stream === null || !video.videoWidth) return Promise.resolve(null);
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}
