"""A small PyTorch network on scikit-learn's digits, as a plain Hydra application."""

import hydra
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import fmexp

torch.set_num_threads(1)  # more are slower for a network of this size


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def train(cfg):
    """Train; returns the share of the validation images that are recognised."""
    torch.manual_seed(cfg.seed)
    parts = train_test_split(*load_digits(return_X_y=True), test_size=0.3, random_state=0)
    X, X_val, y, y_val = (torch.tensor(part) for part in parts)
    hidden = [nn.Linear(64, cfg.width), nn.ReLU(), nn.Dropout(cfg.dropout)]
    network = nn.Sequential(nn.BatchNorm1d(64), *hidden, nn.Linear(cfg.width, 10)).double()
    optimizer = hydra.utils.instantiate(cfg.optimizer, params=network.parameters())
    trial = fmexp.current_trial()
    for epoch in range(1, cfg.epochs + 1):
        for rows in torch.randperm(len(X)).split(cfg.batch_size):
            loss = nn.functional.cross_entropy(network.train()(X[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        accuracy = (network.eval()(X_val).argmax(dim=1) == y_val).double().mean().item()
        trial.log(epoch, {"val/accuracy": accuracy, "train/loss": loss.item()})
        if trial.should_prune():
            break
    torch.save(network.state_dict(), "network.pt")
    trial.artifact("network.pt")
    return accuracy


if __name__ == "__main__":
    train()
