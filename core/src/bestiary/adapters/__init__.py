"""Adapters: small changes of a model's linear layers, chosen for each request.

In the order in which an adapter passes through them:

    peft_config, peft   the files that PEFT writes: read, checked in themselves
    names               which parameters of a model the paths in an adapter mean
    placing             where the weight plan of a model moved the rows of a tensor, a change of it moves too
    laying              an adapter laid on a model: matrices on its device, by layer
    step                which rows of a step use which adapter, and what the layers do with that
    status              limits, and what is shown of the adapters that are loaded
    residency           all adapters of a model: loaded, replaced and unloaded while requests run

And two ways in which several become one model:

    xlora*              adapters mixed for every token by a classifier
    anymoe*             feed-forward blocks of several models as experts, with gates that are trained
"""
